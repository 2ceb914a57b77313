//! Catalog -> snapshot. What has not changed since the last build is used again.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::AHashMap;
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
use crate::router::{Flavor, Router};
use crate::snapshot::plan::{ByScope, Scoped};
use crate::snapshot::target::Destination;
use crate::snapshot::upstream_tls::InUse;
use crate::snapshot::{Plan, RouteEntry, ServiceDefaults, ServiceEntry, Snapshot, certificates};

/// Builds snapshots, one after the other.
pub struct Builder {
    flavor: Flavor,
    defaults: ServiceDefaults,
    handles: Arc<Handles>,
    destinations: Destinations,
    instances: AHashMap<Uuid, Built>,
    /// The vaults that the instances' references were resolved with.
    vaults: Vec<Arc<Row>>,
    services: AHashMap<Uuid, (Arc<Row>, Arc<ServiceEntry>)>,
    certificates: certificates::Builder,
    tls: InUse,
    /// The catalog of the last snapshot.
    last: Option<Arc<Catalog>>,
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

/// A plugin row and what was built of it.
struct Built {
    row: Arc<Row>,
    scoped: Option<Scoped>,
}

impl Builder {
    pub fn new(flavor: Flavor, defaults: ServiceDefaults, handles: Arc<Handles>, resolver: Resolver) -> Self {
        let destinations = Destinations { upstreams: Arc::default(), resolver };
        Self {
            flavor,
            defaults,
            handles,
            destinations,
            instances: AHashMap::new(),
            vaults: Vec::new(),
            services: AHashMap::new(),
            certificates: certificates::Builder::default(),
            tls: InUse::default(),
            last: None,
        }
    }

    /// The snapshot of a catalog. A row that cannot be used is logged and left out; it blocks no other.
    /// `upstreams` are the balancers of its upstreams, by name.
    pub fn build(&mut self, catalog: Arc<Catalog>, upstreams: Upstreams) -> Snapshot {
        self.destinations.upstreams = upstreams;
        self.instances(&catalog);
        self.services(&catalog);
        let mut by_name: HashMap<&'static str, ByScope> = HashMap::new();
        for scoped in self.instances.values().filter_map(|b| b.scoped.as_ref()) {
            by_name.entry(scoped.instance.descriptor.name).or_default().insert(scoped);
        }
        let mut plugins: Vec<(&'static Descriptor, &ByScope)> = PLUGINS.iter().filter_map(|d| Some((d, by_name.get(d.name)?))).collect();
        plugins.sort_by_key(|(d, _)| (-d.priority, d.name));
        let mut plans = Plans { plugins: &plugins, made: AHashMap::new() };
        let mut routes = Vec::new();
        for row in catalog.rows("routes") {
            let Some(route) = row.typed::<Route>() else {
                tracing::error!(route = %row.id, "a route that cannot be read is left out");
                continue;
            };
            let service = match route.service {
                None => None,
                Some(parent) => match self.services.get(&parent.id) {
                    Some((_, entry)) if entry.service.enabled => Some(Arc::clone(entry)),
                    _ => continue,
                },
            };
            let plan = plans.of(route.id, service.as_ref().map(|s| s.service.id));
            routes.push(Arc::new(RouteEntry { route, service, plan }));
        }
        let global = plans.of_nothing();
        let rewriters =
            global.slots.iter().filter(|slot| slot.phases.has(Phases::REWRITE)).filter_map(|slot| slot.pick(None, &[]).cloned()).collect();
        let router =
            Router::compile(routes.iter().map(|e| (Arc::clone(&e.route), e.service.as_ref().map(|s| Arc::clone(&s.service)))), self.flavor);
        let certificates = self.certificates.build(&catalog);
        self.last = Some(Arc::clone(&catalog));
        Snapshot { catalog, router, routes, global, rewriters, flavor: self.flavor, destinations: self.destinations.clone(), certificates }
    }

    fn instances(&mut self, catalog: &Catalog) {
        let mut before = std::mem::take(&mut self.instances);
        let vaults: Vec<_> = catalog.rows("vaults").cloned().collect();
        let same_vaults = vaults.len() == self.vaults.len() && vaults.iter().zip(&self.vaults).all(|(a, b)| Arc::ptr_eq(a, b));
        self.vaults = vaults;
        for row in catalog.rows("plugins") {
            let stays = |built: &Built| Arc::ptr_eq(&built.row, row) && (same_vaults || !row.text().contains("{vault://"));
            let built = match before.remove(&row.id) {
                Some(built) if stays(&built) => built,
                _ => Built { row: Arc::clone(row), scoped: self.instance(row, catalog) },
            };
            self.instances.insert(row.id, built);
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

    fn services(&mut self, catalog: &Catalog) {
        // a service's TLS terms come from these rows too
        let terms = ["certificates", "ca_certificates", "vaults"];
        let same_certificates = self.last.as_ref().is_some_and(|last| terms.iter().all(|entity| catalog.same_rows(last, entity)));
        let mut before = std::mem::take(&mut self.services);
        for row in catalog.rows("services") {
            let Some(service) = row.typed::<Service>() else { continue };
            let destination = self.destinations.of(&service.host);
            let kept = before.remove(&row.id).filter(|(old, entry)| {
                let same_terms = same_certificates || entry.tls_for(&service.protocol).is_none();
                Arc::ptr_eq(old, row) && same_terms && entry.destination.same(&destination)
            });
            let entry = match kept {
                Some((_, entry)) => entry,
                None => Arc::new(ServiceEntry::new(service, destination, catalog, &self.defaults, &mut self.tls)),
            };
            self.services.insert(row.id, (Arc::clone(row), entry));
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

/// Plans, each made once: most routes and services have no configuration of their own and share theirs.
struct Plans<'a> {
    plugins: &'a [(&'static Descriptor, &'a ByScope)],
    made: AHashMap<(Option<Uuid>, Option<Uuid>), Arc<Plan>>,
}

impl Plans<'_> {
    fn of(&mut self, route: Uuid, service: Option<Uuid>) -> Arc<Plan> {
        let names = |route, service| self.plugins.iter().any(|(_, by)| by.names(route, service));
        let route = Some(route).filter(|id| names(Some(*id), None));
        let service = service.filter(|id| names(None, Some(*id)));
        self.make(route, service)
    }

    fn of_nothing(&mut self) -> Arc<Plan> {
        self.make(None, None)
    }

    fn make(&mut self, route: Option<Uuid>, service: Option<Uuid>) -> Arc<Plan> {
        let plugins = self.plugins;
        let plan = self.made.entry((route, service)).or_insert_with(|| Arc::new(Plan::new(plugins.iter().copied(), route, service)));
        Arc::clone(plan)
    }
}
