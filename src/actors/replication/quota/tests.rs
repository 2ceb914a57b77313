use std::collections::BTreeSet;
use std::sync::OnceLock;

use cluster::id::NodeId;
use schema::{Context, EntityType};
use serde_json::{Value, json};

use super::*;
use crate::http::Headers;
use crate::model::PluginRow;
use crate::plugin::testing::{env, exchange, run};
use crate::plugin::{Env, Exchange, Handles, Instance};
use crate::plugins::PLUGINS;

/// A plugin as the Admin API would store it.
fn plugin(name: &str, config: Value, env: &Env) -> Instance {
    let descriptor = PLUGINS.iter().find(|plugin| plugin.name == name).expect("a plugin");
    let choose = |_: &str, _: &str| Some(descriptor.chosen());
    let Value::Object(row) = json!({"name": name, "config": config}) else { unreachable!("a row is an object") };
    let row = schema::validate::insert(PluginRow::entity(), row, &Context { choose: &choose, ..Context::bare() });
    let config = row.unwrap_or_else(|violations| panic!("{violations}")).remove("config").unwrap_or_default();
    descriptor.instance(config, env).unwrap_or_else(|violations| panic!("{violations}"))
}

/// A node whose messages nobody gets.
fn alone() -> Arc<SharedLimits> {
    Arc::new(SharedLimits::new(LeaseHandle::new(NodeId(1), |_, _| ())))
}

fn on(limits: &Arc<SharedLimits>) -> Env {
    let quota = OnceLock::from(Arc::clone(limits) as Arc<dyn Quota>);
    Env { handles: Arc::new(Handles { quota, ..Handles::default() }), ..env() }
}

/// Two nodes, whose messages each have a thread of their own and so come in any order.
#[expect(clippy::disallowed_methods, reason = "there is no arbiter in a unit test")]
fn pair() -> [Arc<SharedLimits>; 2] {
    let handles: Arc<OnceLock<[LeaseHandle; 2]>> = Arc::default();
    let node = |number: u128| {
        let handles = Arc::clone(&handles);
        LeaseHandle::new(NodeId(number), move |to, message| {
            let handles = Arc::clone(&handles);
            std::thread::spawn(move || {
                if let Some(handles) = handles.get() {
                    handles[to.0 as usize].received(NodeId(number), message);
                }
            });
        })
    };
    let both = [node(0), node(1)];
    handles.set(both.clone()).ok().expect("set once");
    let all = BTreeSet::from([NodeId(0), NodeId(1)]);
    both.map(|leases| {
        leases.members(all.clone(), all.clone());
        Arc::new(SharedLimits::new(leases))
    })
}

fn at(seconds: u64) -> Exchange {
    let mut x = exchange("GET", "/", &[]);
    // Half past the hour of a day that has begun, so that no window ends in the meantime.
    let day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() / 86_400 * 86_400;
    x.timing.started_at = SystemTime::UNIX_EPOCH + Duration::from_secs(day + 86_400 + 1_800 + seconds);
    x
}

fn told(headers: &Headers) -> Vec<String> {
    headers.iter().map(|(n, v)| format!("{}: {}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect()
}

/// The status and headers of requests at these seconds, one after the other.
fn requests(plugin: &Instance, seconds: &[u64]) -> Vec<(u16, Vec<String>)> {
    let request = |seconds: &u64| {
        let mut x = at(*seconds);
        match run(plugin.access(&mut x)) {
            Ok(()) => {
                plugin.header_filter(&mut x);
                (200, told(&x.response.headers))
            }
            Err(reply) => (reply.status, told(&reply.headers)),
        }
    };
    seconds.iter().map(request).collect()
}

#[test]
fn a_node_alone_limits_and_tells_as_it_does_with_its_own_counters() {
    for config in [json!({"minute": 3, "hour": 5}), json!({"hour": 50}), json!({"minute": 1.5, "day": 4})] {
        let with = |policy: &str, env: &Env| {
            let mut config = config.clone();
            config["policy"] = policy.into();
            plugin("rate-limiting", config, env)
        };
        let mut seconds: Vec<u64> = (0..60).map(|n| n / 10).collect();
        seconds.extend([60, 61, 62, 63, 3_600, 3_601]);
        let local = requests(&with("local", &env()), &seconds);
        assert_eq!(requests(&with("cluster", &env()), &seconds), local, "{config}, no cluster");
        assert_eq!(requests(&with("cluster", &on(&alone())), &seconds), local, "{config}");
    }
}

/// The status, and what is left of video, after an answer with these costs.
fn answer(plugin: &Instance, costs: &str) -> (u16, Vec<String>) {
    let mut x = at(0);
    if let Err(reply) = run(plugin.access(&mut x)) {
        return (reply.status, told(&reply.headers));
    }
    let upstream = told(&x.request.headers);
    x.response.status = 200;
    x.response.headers.append("X-Kong-Limit", costs);
    plugin.header_filter(&mut x);
    (x.response.status, [upstream, told(&x.response.headers)].concat())
}

#[test]
fn a_node_alone_counts_costs_as_it_does_with_its_own_counters() {
    for block in [false, true] {
        let with = |policy: &str, env: &Env| {
            let config = json!({
                "policy": policy, "block_on_first_violation": block,
                "limits": {"video": {"minute": 4, "hour": 100}, "sms": {"minute": 2}},
            });
            plugin("response-ratelimiting", config, env)
        };
        let (local, shared) = (with("local", &env()), with("cluster", &on(&alone())));
        for costs in
            ["video=1", "video=2,sms=1", "", "sms=1", "sms=1", "video = 9", "video=1", "other=5", "video=-2", "video=-9", "video=1"]
        {
            assert_eq!(answer(&shared, costs), answer(&local, costs), "{costs}");
        }
    }
}

#[test]
fn two_nodes_allow_the_limit_together() {
    for limit in [7, 200] {
        let plugins = pair().map(|limits| plugin("rate-limiting", json!({"hour": limit, "policy": "cluster"}), &on(&limits)));
        let statuses: Vec<u16> = (0..limit + 20).map(|n| requests(&plugins[n % 2], &[0])[0].0).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), limit);
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 20);
    }
}

#[test]
fn two_nodes_count_costs_together() {
    let plugins = pair().map(|limits| {
        let config = json!({"limits": {"video": {"hour": 6}}, "policy": "cluster"});
        plugin("response-ratelimiting", config, &on(&limits))
    });
    let statuses: Vec<u16> = (0..12).map(|n| answer(&plugins[n % 2], "video=1").0).collect();
    assert_eq!(statuses, [[200; 6], [429; 6]].concat());
}

/// A node of two whose peer is there and says nothing.
#[test]
fn who_does_not_answer_is_not_waited_for_and_the_plugin_says_what_then() {
    let limits = alone();
    let both = BTreeSet::from([NodeId(1), NodeId(2)]);
    limits.leases.members(both.clone(), both);
    for (tolerant, statuses) in [(true, [200, 200]), (false, [500, 500])] {
        let config = json!({"hour": 2, "policy": "cluster", "fault_tolerant": tolerant, "limit_by": "ip"});
        let plugin = plugin("rate-limiting", config, &on(&limits));
        let before = limits.stats();
        // The owner is the other node, or this one, which waits for the other one's note for a tenth of a second.
        let told: Vec<(u16, Vec<String>)> = requests(&plugin, &[0, 0]);
        let after = limits.stats();
        assert_eq!(after.leases.unanswered - before.leases.unanswered, 2);
        assert_eq!(after.passed - before.passed, if tolerant { 2 } else { 0 });
        assert_eq!(told.iter().map(|(status, _)| *status).collect::<Vec<_>>(), statuses);
        assert!(told.iter().all(|(_, headers)| !headers.iter().any(|header| header.contains("RateLimit"))));
    }
}

#[test]
fn windows_of_strangers_are_bounded_and_the_limit_holds_for_each() {
    let limits = alone();
    let plugin = plugin("rate-limiting", json!({"hour": 2, "policy": "cluster", "limit_by": "header", "header_name": "x"}), &on(&limits));
    let request = |name: &str| {
        let mut x = at(0);
        x.request.headers.set("x", name);
        run(plugin.access(&mut x)).is_ok()
    };
    for n in 0..1_000 {
        assert!(request(&n.to_string()) && request(&n.to_string()) && !request(&n.to_string()));
    }
    let kept = |limits: &SharedLimits| limits.grants.iter().map(|shard| shard.read().len()).sum::<usize>();
    assert_eq!((kept(&limits), limits.stats().leases.held), (1_000, 1_000));
    limits.sweep();
    assert_eq!(kept(&limits), 1_000, "they are not over");
}
