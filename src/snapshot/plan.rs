//! Which plugin configurations run on a request: decided when the configuration changes, looked up when a request comes.

use std::sync::Arc;

use ahash::AHashMap;
use uuid::Uuid;

use crate::plugin::{Descriptor, Exchange, Instance, Phases};

/// The plugins of one route and service, in the order of their priority.
#[derive(Default)]
pub struct Plan {
    pub slots: Vec<Slot>,
}

/// One plugin name of a plan: at most one of its configurations runs on a request.
pub struct Slot {
    pub name: &'static str,
    pub phases: Phases,
    /// Most specific first.
    levels: Vec<Level>,
}

/// Configurations of one level of specificity.
enum Level {
    /// Runs whoever the consumer is.
    Anyone(Instance),
    /// Runs for these consumers.
    Consumers(Arc<AHashMap<Uuid, Instance>>),
    /// Runs for members of these groups.
    Groups(Arc<AHashMap<Uuid, Instance>>),
}

/// A configured plugin with its scope.
#[derive(Clone)]
pub struct Scoped {
    pub route: Option<Uuid>,
    pub service: Option<Uuid>,
    pub consumer: Option<Uuid>,
    pub group: Option<Uuid>,
    pub instance: Instance,
}

/// The configurations of one plugin name, by scope.
#[derive(Default)]
pub struct ByScope {
    /// How many configurations name a route or a service.
    named: AHashMap<Uuid, usize>,
    rows: AHashMap<(Option<Uuid>, Option<Uuid>), Cell>,
}

/// The configurations for one pair of route and service.
#[derive(Default)]
struct Cell {
    anyone: Option<Instance>,
    consumers: Option<Arc<AHashMap<Uuid, Instance>>>,
    groups: Option<Arc<AHashMap<Uuid, Instance>>>,
}

impl Cell {
    fn is_empty(&self) -> bool {
        let none = |table: &Option<Arc<AHashMap<_, _>>>| table.as_ref().is_none_or(|table| table.is_empty());
        self.anyone.is_none() && none(&self.consumers) && none(&self.groups)
    }
}

impl ByScope {
    /// Whether some configuration is for this route or this service.
    pub fn names(&self, route: Option<Uuid>, service: Option<Uuid>) -> bool {
        [route, service].into_iter().flatten().any(|id| self.named.contains_key(&id))
    }

    pub fn insert(&mut self, scoped: &Scoped) {
        for id in [scoped.route, scoped.service].into_iter().flatten() {
            *self.named.entry(id).or_default() += 1;
        }
        let cell = self.rows.entry((scoped.route, scoped.service)).or_default();
        let table = match (scoped.consumer, scoped.group) {
            (Some(consumer), _) => (&mut cell.consumers, consumer),
            (None, Some(group)) => (&mut cell.groups, group),
            (None, None) => {
                cell.anyone = Some(scoped.instance.clone());
                return;
            }
        };
        Arc::make_mut(table.0.get_or_insert_default()).insert(table.1, scoped.instance.clone());
    }

    pub fn remove(&mut self, scoped: &Scoped) {
        for id in [scoped.route, scoped.service].into_iter().flatten() {
            if let Some(count) = self.named.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.named.remove(&id);
                }
            }
        }
        let at = (scoped.route, scoped.service);
        let Some(cell) = self.rows.get_mut(&at) else { return };
        let mine = |instance: &Instance| instance.id == scoped.instance.id;
        let take = |table: &mut Option<Arc<AHashMap<Uuid, Instance>>>, id: &Uuid| {
            if let Some(table) = table.as_mut().filter(|table| table.get(id).is_some_and(mine)) {
                Arc::make_mut(table).remove(id);
            }
        };
        match (&scoped.consumer, &scoped.group) {
            (Some(consumer), _) => take(&mut cell.consumers, consumer),
            (None, Some(group)) => take(&mut cell.groups, group),
            (None, None) => cell.anyone = cell.anyone.take().filter(|instance| !mine(instance)),
        }
        if cell.is_empty() {
            self.rows.remove(&at);
        }
    }

    /// Whether there is no configuration.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Kong's order: route + service + consumer, route + consumer, service + consumer, the same with a group, route + service,
    /// consumer, group, route, service, global.
    fn levels(&self, route: Option<Uuid>, service: Option<Uuid>) -> Vec<Level> {
        let cell = |r: Option<Uuid>, s: Option<Uuid>| self.rows.get(&(r, s));
        let pairs: Vec<_> = [(route, service), (route, None), (None, service)]
            .into_iter()
            .filter(|(r, s)| (r.is_some() || s.is_some()) && (r.is_some() == route.is_some() || r.is_none()))
            .collect();
        let mut levels = Vec::new();
        for (r, s) in &pairs {
            levels.extend(cell(*r, *s).and_then(|c| c.consumers.clone()).map(Level::Consumers));
        }
        for (r, s) in &pairs {
            levels.extend(cell(*r, *s).and_then(|c| c.groups.clone()).map(Level::Groups));
        }
        if route.is_some() && service.is_some() {
            levels.extend(cell(route, service).and_then(|c| c.anyone.clone()).map(Level::Anyone));
        }
        let global = cell(None, None);
        levels.extend(global.and_then(|c| c.consumers.clone()).map(Level::Consumers));
        levels.extend(global.and_then(|c| c.groups.clone()).map(Level::Groups));
        let single = [route.and_then(|r| cell(Some(r), None)), service.and_then(|s| cell(None, Some(s))), global];
        levels.extend(single.into_iter().flatten().find_map(|c| c.anyone.clone()).map(Level::Anyone));
        levels
    }
}

impl Plan {
    /// The plan for a route and its service. `plugins` is in descending order of priority.
    pub fn new<'a>(plugins: impl Iterator<Item = (&'static Descriptor, &'a ByScope)>, route: Option<Uuid>, service: Option<Uuid>) -> Self {
        let mut slots = Vec::new();
        for (descriptor, by_scope) in plugins {
            let mut levels = by_scope.levels(route, service);
            // nothing is reached behind a configuration that runs for anyone
            if let Some(last) = levels.iter().position(|l| matches!(l, Level::Anyone(_))) {
                levels.truncate(last + 1);
            }
            if !levels.is_empty() {
                slots.push(Slot { name: descriptor.name, phases: descriptor.phases, levels });
            }
        }
        Self { slots }
    }

    /// Adds what runs for this request from slot `at` on: filters and log run even when an earlier plugin has answered.
    pub fn collect_rest(&self, x: &mut Exchange, at: usize) {
        let consumer = x.authenticated.consumer.as_ref().map(|c| c.id);
        for slot in self.slots.iter().skip(at) {
            if let Some(instance) = slot.pick(consumer, &x.authenticated.groups) {
                x.chosen.push(instance.clone());
            }
        }
    }
}

impl Slot {
    /// The configuration that runs for this consumer.
    pub fn pick(&self, consumer: Option<Uuid>, groups: &[Uuid]) -> Option<&Instance> {
        self.levels.iter().find_map(|level| match level {
            Level::Anyone(instance) => Some(instance),
            Level::Consumers(table) => table.get(&consumer?),
            Level::Groups(table) => groups.iter().find_map(|g| table.get(g)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::{ByScope, Plan, Scoped};
    use crate::plugin::{Descriptor, Env, Exchange, Handles, Instance, Phases, Plugin};

    struct Nothing;

    #[derive(serde::Deserialize, schema::Record)]
    struct Empty {}

    impl Plugin for Nothing {
        const NAME: &'static str = "nothing";
        const PRIORITY: i32 = 1;
        const PHASES: Phases = Phases::ACCESS;
        type Config = Empty;

        fn new(_: Empty, _: &Env) -> Result<Self, schema::Violations> {
            Ok(Self)
        }

        fn body_filter(&self, _: &mut Exchange, _: &mut Bytes, _: bool) {}
    }

    static NOTHING: Descriptor = Descriptor::of::<Nothing>();

    fn instance(id: u128) -> Instance {
        let env = Env {
            id: Uuid::from_u128(id),
            instance_name: None,
            route: None,
            service: None,
            consumer: None,
            consumer_group: None,
            handles: Arc::new(Handles::default()),
        };
        NOTHING.instance(schema::json!({}), &env).expect("an empty configuration is a good one")
    }

    /// Which of the scopes, in Kong's order of precedence, wins when only those with an index of at least `from` exist.
    #[test]
    fn the_most_specific_configuration_runs() {
        let (r, s, c) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let scopes = [
            (Some(r), Some(s), Some(c)),
            (Some(r), None, Some(c)),
            (None, Some(s), Some(c)),
            (Some(r), Some(s), None),
            (None, None, Some(c)),
            (Some(r), None, None),
            (None, Some(s), None),
            (None, None, None),
        ];
        for from in 0..scopes.len() {
            let mut by_scope = ByScope::default();
            for (i, (route, service, consumer)) in scopes.iter().enumerate().skip(from) {
                let (route, service, consumer) = (*route, *service, *consumer);
                by_scope.insert(&Scoped { route, service, consumer, group: None, instance: instance(100 + i as u128) });
            }
            let plan = Plan::new([(&NOTHING, &by_scope)].into_iter(), Some(r), Some(s));
            let picked = plan.slots[0].pick(Some(c), &[]).map(|i| i.id);
            assert_eq!(picked, Some(Uuid::from_u128(100 + from as u128)), "from {from}");
        }
    }

    #[test]
    fn a_consumers_configuration_waits_for_the_consumer() {
        let consumer = Uuid::from_u128(3);
        let mut by_scope = ByScope::default();
        by_scope.insert(&Scoped { route: None, service: None, consumer: Some(consumer), group: None, instance: instance(1) });
        let plan = Plan::new([(&NOTHING, &by_scope)].into_iter(), None, None);
        assert!(plan.slots[0].pick(None, &[]).is_none());
        assert!(plan.slots[0].pick(Some(Uuid::from_u128(4)), &[]).is_none());
        assert!(plan.slots[0].pick(Some(consumer), &[]).is_some());
    }
}
