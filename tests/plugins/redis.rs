//! Limits whose counters are in a Redis.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::redis::RedisServer;
use crate::support::{Answer, Node, Upstream, wait_for};

/// A node with a route to an upstream.
fn node(upstream: &Upstream, settings: &[(&str, &str)]) -> Node {
    let node = Node::start(settings);
    node.admin("POST", "/services", json!({"name": "s", "url": upstream.url()}));
    node.admin("POST", "/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    node
}

/// A global plugin, so that nodes whose services have other ids count together. Limits are of years: no window ends meanwhile.
fn limited(node: &Node, redis: Value, more: &[(&str, Value)]) -> String {
    let mut config = json!({"year": 5, "policy": "redis", "redis": redis});
    more.iter().for_each(|(name, value)| config[*name] = value.clone());
    let plugin = node.admin("POST", "/plugins", json!({"name": "rate-limiting", "config": config}));
    plugin["id"].as_str().expect("an id").to_owned()
}

fn change(node: &Node, plugin: &str, config: Value) {
    node.admin("PATCH", &format!("/plugins/{plugin}"), json!({"config": config}));
}

fn at(server: &RedisServer) -> Value {
    json!({"host": "127.0.0.1", "port": server.port})
}

/// Status, and what the answer says is left.
fn told(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("RateLimit-Remaining"))
}

#[test]
fn nodes_share_one_limit() {
    let (server, upstream) = (RedisServer::start(), Upstream::start("hello"));
    let nodes = [node(&upstream, &[]), node(&upstream, &[])];
    let plugin = nodes.each_ref().map(|node| limited(node, at(&server), &[]));
    for (n, left) in ["4", "3", "2", "1", "0"].into_iter().enumerate() {
        assert_eq!(told(&nodes[n % 2].get("/")), (200, Some(left)));
    }
    for node in &nodes {
        let refused = node.get("/");
        assert_eq!(told(&refused), (429, Some("0")));
        assert!(refused.header("Retry-After").is_some());
    }
    let keys = server.keys();
    let [key] = &keys[..] else { panic!("{keys:?}") };
    assert!(key.starts_with("ratelimit:00000000-0000-0000-0000-000000000000:00000000-0000-0000-0000-000000000000:127.0.0.1:"));
    assert_eq!(server.ask::<u32>("GET", key), 7, "refused requests are counted as well");

    for (node, plugin) in nodes.iter().zip(&plugin) {
        node.admin_answer("DELETE", &format!("/plugins/{plugin}"), &Value::Null);
        assert_eq!(told(&node.get("/")), (200, None));
    }
    wait_for("nobody is connected any more", || server.ask::<String>("CLIENT", "LIST").lines().count() == 1);
}

#[test]
fn without_redis_requests_pass_or_fail_as_configured() {
    let (mut server, upstream) = (RedisServer::locked("a-good-secret"), Upstream::start("hello"));
    let node = node(&upstream, &[]);
    let redis = json!({"host": "127.0.0.1", "port": server.port, "password": "a-good-secret", "timeout": 300});
    let plugin = limited(&node, redis, &[("year", json!(1000))]);
    let tolerate = |yes: bool| change(&node, &plugin, json!({"fault_tolerant": yes}));
    let fails = |answer: &Answer| {
        assert_eq!((answer.status, &answer.json()["message"]), (500, &json!("An unexpected error occurred")));
    };
    assert_eq!(told(&node.get("/")), (200, Some("999")));

    server.kill();
    for _ in 0..20 {
        assert_eq!(told(&node.get("/")), (200, None));
    }
    tolerate(false);
    for _ in 0..20 {
        fails(&node.get("/"));
    }
    server.restart();
    wait_for("limits are back", || told(&node.get("/")) == (200, Some("998")));

    // a server that says nothing: each waits for the timeout at most
    server.signal(Signal::SIGSTOP);
    for tolerant in [false, true] {
        tolerate(tolerant);
        for _ in 0..5 {
            let (started, answer) = (Instant::now(), node.get("/"));
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
            match tolerant {
                true => assert_eq!(told(&answer), (200, None)),
                false => fails(&answer),
            }
        }
    }
    server.signal(Signal::SIGCONT);
    wait_for("limits are back", || node.get("/").header("RateLimit-Remaining").is_some());

    change(&node, &plugin, json!({"redis": {"password": "a-wrong-secret"}}));
    assert_eq!(told(&node.get("/")), (200, None));
    tolerate(false);
    fails(&node.get("/"));
    change(&node, &plugin, json!({"redis": {"password": "a-good-secret"}}));
    assert_eq!(node.get("/").status, 200);

    let log = node.log();
    assert!(log.contains("redis fails") && log.contains("Password authentication failed"), "{log}");
    assert!(log.matches("redis fails").count() < 10, "one line for many requests");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn tls_is_verified_by_the_authorities_of_the_node() {
    let (server, upstream) = (RedisServer::tls(), Upstream::start("hello"));
    let authority = server.authority.as_ref().expect("an authority").display().to_string();
    let redis = json!({"host": "127.0.0.1", "port": server.port, "ssl": true, "ssl_verify": true, "server_name": "redis.test"});
    let trusting = node(&upstream, &[("lua_ssl_trusted_certificate", &authority)]);
    let plugin = limited(&trusting, redis.clone(), &[("fault_tolerant", json!(false))]);
    assert_eq!(told(&trusting.get("/")), (200, Some("4")));
    change(&trusting, &plugin, json!({"redis": {"server_name": "other.test"}}));
    assert_eq!(trusting.get("/").status, 500);
    let other = node(&upstream, &[]);
    let plugin = limited(&other, redis, &[("fault_tolerant", json!(false))]);
    assert_eq!(other.get("/").status, 500);
    change(&other, &plugin, json!({"redis": {"ssl_verify": false}}));
    assert_eq!(told(&other.get("/")), (200, Some("3")));
}

#[test]
fn batches_are_brought_every_sync_rate_and_when_a_node_stops() {
    let (server, upstream) = (RedisServer::start(), Upstream::start("hello"));
    let mut nodes = [node(&upstream, &[]), node(&upstream, &[])];
    for node in &nodes {
        limited(node, at(&server), &[("year", json!(100)), ("sync_rate", json!(0.2))]);
    }
    let counted = || server.keys().first().map(|key| server.ask::<usize>("GET", key));
    for n in 0..20 {
        assert_eq!(nodes[n % 2].get("/").status, 200);
    }
    wait_for("all are brought", || counted() == Some(20));
    let mut sent = 20;
    wait_for("what one counted the other sees, once it asks again", || {
        sent += 1;
        told(&nodes[0].get("/")) == (200, Some(&(100 - sent).to_string()))
    });
    wait_for("all are brought", || counted() == Some(sent));

    let plugin = nodes[0].admin("GET", "/plugins", Value::Null)["data"][0]["id"].as_str().expect("an id").to_owned();
    change(&nodes[0], &plugin, json!({"sync_rate": 1000}));
    for _ in 0..5 {
        assert_eq!(nodes[0].get("/").status, 200);
    }
    assert_eq!(counted(), Some(sent + 1), "the question counts one");
    nodes[0].signal(Signal::SIGTERM);
    assert_eq!(nodes[0].ended(), Some(0));
    assert_eq!(counted(), Some(sent + 5));
}

#[test]
fn costs_that_upstreams_tell_are_shared() {
    let (mut server, upstream) = (RedisServer::start(), Upstream::telling("X-Kong-Limit: video=2, sms=1\r\n", "hello"));
    let nodes = [node(&upstream, &[]), node(&upstream, &[])];
    let config = json!({"policy": "redis", "redis": at(&server), "limits": {"video": {"year": 5}, "sms": {"year": 9, "minute": 9}}});
    for node in &nodes {
        node.admin("POST", "/plugins", json!({"name": "response-ratelimiting", "config": config}));
    }
    let left = |answer: &Answer| answer.header("X-RateLimit-Remaining-video-year").map(str::to_owned);
    let video = |server: &RedisServer, n: u32| {
        wait_for("costs are counted", || {
            let keys = server.keys();
            let key = keys.iter().find(|key| key.ends_with(":video:year"));
            key.is_some_and(|key| server.ask::<u32>("GET", key) == n)
        });
    };
    for (n, remaining) in ["3", "1", "0"].into_iter().enumerate() {
        let answer = nodes[n % 2].get("/");
        assert_eq!((answer.status, left(&answer).as_deref()), (200, Some(remaining)));
        assert!(answer.header("X-Kong-Limit").is_none());
        video(&server, 2 * (n as u32 + 1));
    }
    for node in &nodes {
        assert_eq!(node.get("/").status, 429);
    }
    let keys = server.keys();
    assert_eq!(keys.iter().filter(|key| !key.ends_with(":second")).count(), 10, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("response-ratelimit:") && server.ask::<i64>("TTL", key) > 0), "{keys:?}");

    server.kill();
    let answer = nodes[0].get("/");
    assert_eq!((answer.status, left(&answer)), (200, None));
    assert!(answer.header("X-Kong-Limit").is_none());
}
