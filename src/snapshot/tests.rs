//! A snapshot that was made by what has changed is the one that would be made from nothing.

use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use schema::{Context, Object, Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Builder, ServiceDefaults, Snapshot};
use crate::balancer::Resolver;
use crate::balancer::dns::{Answer, Lookups};
use crate::catalog::{Catalog, Change, Key, Row};
use crate::model::entity;
use crate::plugin::testing::exchange;
use crate::plugin::{Descriptor, Handles};
use crate::plugins;
use crate::router::Flavor;

/// No name is ever asked for.
struct Never;

impl Lookups for Never {
    fn look_up(&self, _: &str, _: Option<oneshot::Sender<Answer>>) -> bool {
        false
    }
}

fn builder() -> Builder {
    let resolver = Resolver::new(Arc::default(), Arc::new(Never));
    Builder::new(Flavor::TraditionalCompatible, ServiceDefaults::default(), Arc::new(Handles::default()), resolver)
}

fn object(value: Value) -> Object {
    value.as_object().cloned().expect("an object")
}

/// What is asked of a snapshot: for paths and hosts the route, the service and the plugins that run.
fn answers(snapshot: &Snapshot) -> Vec<String> {
    let mut answers = Vec::new();
    for host in ["a.test", "b.test", "x.c.test"] {
        for path in 0..8 {
            let mut x = exchange("GET", &format!("/p{path}/x"), &[("Host", host)]);
            let found = snapshot.find_route(&x).map(|found| {
                found.entry.plan.collect_rest(&mut x, 0);
                let plugins: Vec<_> = x.chosen.iter().map(|instance| instance.id).collect();
                let service = found.entry.service.as_ref().map(|s| s.service.updated_at);
                (found.entry.route.id, found.entry.route.updated_at, service, plugins)
            });
            answers.push(format!("{host} {path} {found:?}"));
        }
    }
    answers.push(format!("{:?}", snapshot.global_plan().slots.iter().map(|slot| slot.name).collect::<Vec<_>>()));
    answers
}

#[test]
fn what_is_built_by_changes_is_what_is_built_at_once() {
    let choose = |entity: &str, name: &str| plugins::plugin(name).filter(|_| entity == "plugins").map(Descriptor::chosen);
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut catalog = Catalog::default();
        let mut by_changes = builder();
        let ids = |catalog: &Catalog, entity: &str| catalog.rows(entity).map(|row| row.id).collect::<Vec<Uuid>>();
        for step in 0..60 {
            let context = Context { choose: &choose, now: f64::from(1_700_000_000 + step), ..Context::bare() };
            let kind = *["services", "routes", "routes", "plugins"].choose(&mut random).expect("some");
            let (services, routes) = (ids(&catalog, "services"), ids(&catalog, "routes"));
            let any = |random: &mut StdRng, of: &[Uuid]| match of.choose(random) {
                Some(id) if random.random_bool(0.7) => json!({"id": id.to_string()}),
                _ => Value::Null,
            };
            let host = *["a.test", "*.c.test"].choose(&mut random).expect("some");
            let plugin = *["bot-detection", "correlation-id"].choose(&mut random).expect("some");
            let input = match kind {
                "services" => json!({"host": "127.0.0.1", "enabled": random.random_bool(0.8)}),
                "routes" => json!({
                    "paths": [format!("/p{}", random.random_range(0..8)), format!("~/p{}/\\w", random.random_range(0..8))],
                    "hosts": if random.random_bool(0.5) { json!([host]) } else { Value::Null },
                    "service": any(&mut random, &services),
                }),
                _ => json!({
                    "name": plugin,
                    "route": any(&mut random, &routes), "service": any(&mut random, &services), "enabled": random.random_bool(0.8),
                }),
            };
            let (entity, present) = (entity(kind).expect("an entity"), ids(&catalog, kind));
            let key = present.choose(&mut random).map(|id| Key::Id(*id));
            let change = match (random.random_range(0..4), key) {
                (0, Some(key)) => Change::Delete { entity, key, scope: None },
                (1, Some(key)) => Change::Upsert { entity, key, scope: None, input: object(input) },
                _ => Change::Create { entity, input: object(input) },
            };
            // some are refused: a service that has routes, a plugin that is there already
            let Ok(plan) = catalog.plan(change, &context) else { continue };
            catalog = plan.next;
            let shared = Arc::new(catalog.clone());
            let one = answers(&by_changes.build(Arc::clone(&shared), Arc::default()));
            let other = answers(&builder().build(shared, Arc::default()));
            assert_eq!(one, other, "seed {seed}, step {step}");
        }
    }
}

/// A change of a route among 10,000 costs less than 5 ms, in a debug build too.
#[test]
fn a_change_among_many_routes_costs_little() {
    let context = Context::bare();
    let route = |n: u128| {
        let entity = entity("routes").expect("an entity");
        let input = object(json!({"id": Uuid::from_u128(n).to_string(), "paths": [format!("/r/{n}")]}));
        let body = schema::validate::insert(entity, input, &context).expect("a good route");
        Arc::new(Row::new(entity, Uuid::from_u128(n), &body))
    };
    let rows: Vec<_> = (1..=10_000).map(route).collect();
    let mut builder = builder();
    let catalog = Catalog::of(rows);
    builder.build(Arc::new(catalog.clone()), Arc::default());
    let plan = catalog.plan(Change::Import(vec![route(7_919_000)]), &context).expect("a good row");
    let started = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock is always there");
    builder.build(Arc::new(plan.next), Arc::default());
    let took = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock is always there") - started);
    assert!(took < Duration::from_millis(5), "{took:?}");
}
