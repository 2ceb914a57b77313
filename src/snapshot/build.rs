//! Catalog -> snapshot, by what has changed since the last one.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use imbl::Vector;
use schema::Violations;
use serde_json::Value;
use uuid::Uuid;

use crate::balancer::dns::literal;
use crate::balancer::{Balancer, Resolver};
use crate::catalog::vault::Vaults;
use crate::catalog::{Catalog, Row};
use crate::model::{PluginRow, Route, Service};
use crate::plugin::{Descriptor, Env, Handles, Instance, Phases};
use crate::plugins::{PLUGINS, plugin};
use crate::router::{self, Flavor};
use crate::snapshot::plan::{ByScope, Scoped};
use crate::snapshot::target::Destination;
use crate::snapshot::upstream_tls::InUse;
use crate::snapshot::{Plan, RouteEntry, ServiceDefaults, ServiceEntry, Snapshot, Speaks, Way, certificates};

/// Builds snapshots, one after the other; each costs what has changed since the last one.
pub struct Builder {
    flavor: Flavor,
    defaults: ServiceDefaults,
    handles: Arc<Handles>,
    destinations: Destinations,
    /// The catalog of the last snapshot.
    last: Arc<Catalog>,
    /// What was built of each plugin row; nothing where it does not run.
    instances: AHashMap<Uuid, Option<Scoped>>,
    by_name: AHashMap<&'static str, ByScope>,
    plans: AHashMap<(Option<Uuid>, Option<Uuid>), Arc<Plan>>,
    services: AHashMap<Uuid, Arc<ServiceEntry>>,
    tls: InUse,
    certificates: certificates::Builder,
    router: router::Builder,
    routes: Vector<Option<Arc<RouteEntry>>>,
    /// The place of each route in `routes`, and places that are free.
    places: AHashMap<Uuid, usize>,
    free: Vec<usize>,
}

/// The balancers of upstreams, by name.
pub type Upstreams = Arc<AHashMap<Arc<str>, Arc<Balancer>>>;

/// Where hosts lead.
#[derive(Clone)]
pub struct Destinations {
    upstreams: Upstreams,
    resolver: Resolver,
}

impl Destinations {
    /// Where a host leads: an address, an upstream of that name, or a name to resolve.
    pub fn of(&self, host: &str) -> Destination {
        if let Some(balancer) = self.upstreams.get(host) {
            return Destination::Upstream(Arc::clone(balancer));
        }
        match literal(host) {
            Some(ip) => Destination::Address(ip),
            None => Destination::Name(self.resolver.clone()),
        }
    }
}

/// Routes that must be looked at again.
#[derive(Default)]
struct Touched {
    all: bool,
    routes: AHashSet<Uuid>,
    services: AHashSet<Uuid>,
}

impl Builder {
    pub fn new(flavor: Flavor, defaults: ServiceDefaults, handles: Arc<Handles>, resolver: Resolver) -> Self {
        Self {
            flavor,
            defaults,
            handles,
            destinations: Destinations { upstreams: Arc::default(), resolver },
            last: Arc::default(),
            instances: AHashMap::new(),
            by_name: AHashMap::new(),
            plans: AHashMap::new(),
            services: AHashMap::new(),
            tls: InUse::default(),
            certificates: certificates::Builder::default(),
            router: router::Builder::new(flavor),
            routes: Vector::new(),
            places: AHashMap::new(),
            free: Vec::new(),
        }
    }

    /// The snapshot of a catalog. A row that cannot be used is logged and left out; it blocks no other.
    /// `upstreams` are the balancers of its upstreams, by name.
    pub fn build(&mut self, catalog: Arc<Catalog>, upstreams: Upstreams) -> Snapshot {
        let mut touched = Touched::default();
        self.instances(&catalog, &mut touched);
        self.services(&catalog, upstreams, &mut touched);
        self.routes(&catalog, &touched);
        let certificates = self.certificates.build(&catalog);
        let global = self.plan(None, None);
        let rewriters =
            global.slots.iter().filter(|slot| slot.phases.has(Phases::REWRITE)).filter_map(|slot| slot.pick(None, &[]).cloned()).collect();
        self.last = Arc::clone(&catalog);
        Snapshot {
            catalog,
            router: self.router.router(),
            routes: self.routes.clone(),
            global,
            rewriters,
            destinations: self.destinations.clone(),
            certificates,
        }
    }

    fn instances(&mut self, catalog: &Catalog, touched: &mut Touched) {
        let mut changed = catalog.changes(&self.last, "plugins");
        if !catalog.same_rows(&self.last, "vaults") {
            let refers = |row: &&Arc<Row>| row.text().contains("{vault://");
            changed.extend(catalog.rows("plugins").filter(refers).map(|row| (row.id, Some(row))));
        }
        for (id, row) in changed {
            let next = row.and_then(|row| self.instance(row, catalog));
            let before = self.instances.remove(&id).flatten();
            if let Some(before) = &before {
                let by_scope = self.by_name.entry(before.instance.descriptor.name).or_default();
                by_scope.remove(before);
                if by_scope.is_empty() {
                    self.by_name.remove(before.instance.descriptor.name);
                }
            }
            if let Some(next) = &next {
                self.by_name.entry(next.instance.descriptor.name).or_default().insert(next);
            }
            [&before, &next].into_iter().flatten().for_each(|scoped| touched.plugin(scoped));
            if row.is_some() {
                self.instances.insert(id, next);
            }
        }
        if touched.all {
            self.plans.clear();
        } else {
            let stays = |id: &Option<Uuid>, touched: &AHashSet<Uuid>| id.is_none_or(|id| !touched.contains(&id));
            self.plans.retain(|(route, service), _| stays(route, &touched.routes) && stays(service, &touched.services));
        }
    }

    fn instance(&self, row: &Row, catalog: &Catalog) -> Option<Scoped> {
        let typed = row.typed::<PluginRow>()?;
        if !typed.enabled {
            return None;
        }
        match build_instance(&typed, catalog, &self.handles) {
            Ok(instance) => Some(Scoped {
                route: typed.route.map(|p| p.id),
                service: typed.service.map(|p| p.id),
                consumer: typed.consumer.map(|p| p.id),
                group: typed.consumer_group.map(|p| p.id),
                instance,
            }),
            Err(error) => {
                tracing::error!(plugin = %typed.name, id = %typed.id, %error, "a plugin that cannot be built does not run");
                None
            }
        }
    }

    fn services(&mut self, catalog: &Catalog, upstreams: Upstreams, touched: &mut Touched) {
        let mut changed: AHashMap<Uuid, Option<&Arc<Row>>> = catalog.changes(&self.last, "services").into_iter().collect();
        // a service's TLS terms come from these rows too
        let same_terms = ["certificates", "ca_certificates", "vaults"].iter().all(|entity| catalog.same_rows(&self.last, entity));
        let same_upstreams = Arc::ptr_eq(&self.destinations.upstreams, &upstreams);
        self.destinations.upstreams = upstreams;
        if !same_terms || !same_upstreams {
            for row in catalog.rows("services") {
                let stays = |entry: &Arc<ServiceEntry>| {
                    let same_terms = same_terms || entry.tls_for(&entry.service.protocol).is_none();
                    same_terms && entry.destination.same(&self.destinations.of(&entry.service.host))
                };
                if !self.services.get(&row.id).is_some_and(stays) {
                    changed.insert(row.id, Some(row));
                }
            }
        }
        for (id, row) in changed {
            touched.services.insert(id);
            let Some(service) = row.and_then(|row| row.typed::<Service>()) else {
                self.services.remove(&id);
                continue;
            };
            let destination = self.destinations.of(&service.host);
            let entry = ServiceEntry::new(service, destination, catalog, &self.defaults, &mut self.tls);
            self.services.insert(id, Arc::new(entry));
        }
    }

    fn routes(&mut self, catalog: &Catalog, touched: &Touched) {
        let mut changed: AHashMap<Uuid, Option<&Arc<Row>>> = catalog.changes(&self.last, "routes").into_iter().collect();
        if touched.all {
            changed.extend(catalog.rows("routes").map(|row| (row.id, Some(row))));
        }
        let of_services = touched.services.iter().flat_map(|id| catalog.children("routes", "service", *id));
        changed.extend(of_services.map(|row| (row.id, Some(row))));
        changed.extend(touched.routes.iter().map(|id| (*id, catalog.get("routes", id))));
        for (id, row) in changed {
            match row.and_then(|row| self.route(row)) {
                Some(entry) => self.put(id, entry),
                None => self.take(&id),
            }
        }
    }

    /// The route as requests use it; nothing when it is not served.
    fn route(&mut self, row: &Row) -> Option<RouteEntry> {
        let Some(route) = row.typed::<Route>() else {
            tracing::error!(route = %row.id, "a route that cannot be read is left out");
            return None;
        };
        let service = match route.service {
            None => None,
            Some(parent) => Some(self.services.get(&parent.id).filter(|entry| entry.service.enabled).cloned()?),
        };
        let plan = self.plan(Some(route.id), service.as_ref().map(|s| s.service.id));
        let (speaks, way, buffers) = (Speaks::of(&route), Way::of(&route, self.flavor), route.request_buffering);
        Some(RouteEntry { route, service, plan, speaks, way, buffers })
    }

    fn put(&mut self, id: Uuid, entry: RouteEntry) {
        let place = *self.places.entry(id).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.routes.push_back(None);
                self.routes.len() - 1
            })
        });
        let known = self.routes.get(place).and_then(Option::as_ref).is_some_and(|known| Arc::ptr_eq(&known.route, &entry.route));
        if !known {
            self.router.set(place, Some(&entry.route));
        }
        self.routes.set(place, Some(Arc::new(entry)));
    }

    fn take(&mut self, id: &Uuid) {
        if let Some(place) = self.places.remove(id) {
            self.router.set(place, None);
            self.routes.set(place, None);
            self.free.push(place);
        }
    }

    /// The plan of a route and its service: most have no configuration of their own and share theirs.
    fn plan(&mut self, route: Option<Uuid>, service: Option<Uuid>) -> Arc<Plan> {
        let names = |route, service| self.by_name.values().any(|by| by.names(route, service));
        let route = route.filter(|id| names(Some(*id), None));
        let service = service.filter(|id| names(None, Some(*id)));
        let by_name = &self.by_name;
        let plan = self.plans.entry((route, service)).or_insert_with(|| {
            let mut plugins: Vec<(&'static Descriptor, &ByScope)> =
                PLUGINS.iter().filter_map(|d| Some((d, by_name.get(d.name)?))).collect();
            plugins.sort_by_key(|(d, _)| (-d.priority, d.name));
            Arc::new(Plan::new(plugins.into_iter(), route, service))
        });
        Arc::clone(plan)
    }
}

impl Touched {
    /// A plugin configuration came, went or became another.
    fn plugin(&mut self, scoped: &Scoped) {
        match (scoped.route, scoped.service) {
            (Some(route), _) => drop(self.routes.insert(route)),
            (None, Some(service)) => drop(self.services.insert(service)),
            (None, None) => self.all = true,
        }
    }
}

fn build_instance(row: &PluginRow, catalog: &Catalog, handles: &Arc<Handles>) -> Result<Instance, Violations> {
    let descriptor = plugin(&row.name).ok_or_else(|| Violations::field("name", "no such plugin"))?;
    let mut config = row.config.clone();
    if let Value::Object(table) = &mut config {
        let environment = |name: &str| std::env::var(name).ok();
        for (field, error) in Vaults::of(catalog, &environment).resolve_row((descriptor.config)(), None, table) {
            tracing::warn!(plugin = %row.name, id = %row.id, field, %error, "a reference has no value");
        }
    }
    let env = Env {
        id: row.id,
        instance_name: row.instance_name.as_ref().map(|name| name.to_string()),
        route: row.route.map(|p| p.id),
        service: row.service.map(|p| p.id),
        consumer: row.consumer.map(|p| p.id),
        consumer_group: row.consumer_group.map(|p| p.id),
        handles: Arc::clone(handles),
    };
    descriptor.instance(config, &env)
}
