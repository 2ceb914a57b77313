//! Limits that nodes share. Windows are those of a year, so that none ends during a test.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::wire::Wired;
use super::{Cloud, publish, status};
use crate::support::{Node, Upstream, get, wait_for};

/// Longer than a node holds it for certain that nothing is left.
const USED_UP: Duration = Duration::from_millis(1_300);

/// A connection that is kept for many requests.
struct Client {
    stream: TcpStream,
    request: String,
}

impl Client {
    fn new(at: SocketAddr, path: &str) -> Option<Self> {
        let stream = TcpStream::connect(at).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        Some(Self { stream, request: format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n") })
    }

    /// The status and the head of an answer; its body is read and forgotten.
    fn ask(&mut self) -> Option<(u16, String)> {
        self.stream.write_all(self.request.as_bytes()).ok()?;
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if bytes.len() >= end + 4 + length.unwrap_or(0) {
                    return Some((head.split(' ').nth(1)?.parse().ok()?, head));
                }
            }
            match self.stream.read(&mut buffer).ok()? {
                0 => return None,
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
    }
}

/// So many requests over all of these nodes, as fast as they come, three at a time at each; how often each status was answered. Who
/// gets no answer stops.
fn burst(nodes: &[&Node], path: &str, requests: u64) -> BTreeMap<u16, u64> {
    let left = AtomicU64::new(requests);
    let mut answers = BTreeMap::new();
    std::thread::scope(|scope| {
        let tasks: Vec<_> = nodes
            .iter()
            .flat_map(|node| [node; 3])
            .map(|node| {
                scope.spawn(|| {
                    let mut statuses = Vec::new();
                    let Some(mut client) = Client::new(node.proxy, path) else { return statuses };
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                        match client.ask() {
                            Some((status, _)) => statuses.push(status),
                            None => return statuses,
                        }
                    }
                    statuses
                })
            })
            .collect();
        for status in tasks.into_iter().flat_map(|task| task.join().expect("a client")) {
            *answers.entry(status).or_default() += 1;
        }
    });
    answers
}

fn allowed(answers: &BTreeMap<u16, u64>) -> u64 {
    // Nobody passes because an owner did not answer; who does not is told so.
    assert!(answers.keys().all(|status| [200, 429, 500].contains(status)), "{answers:?}");
    answers.get(&200).copied().unwrap_or(0)
}

/// Sends bursts until none has anything allowed; how many were.
fn exhaust(nodes: &[&Node], path: &str) -> u64 {
    let mut all = 0;
    loop {
        std::thread::sleep(USED_UP);
        match allowed(&burst(nodes, path, 30)) {
            0 => return all,
            some => all += some,
        }
    }
}

/// A route with a limit at all nodes.
fn limited(cloud: &Cloud, upstream: &Upstream, name: &str, plugin: &str, config: Value) {
    publish(&cloud.nodes[0], name, upstream);
    cloud.nodes[0].admin("POST", &format!("/routes/{name}/plugins"), json!({"name": plugin, "config": config}));
    cloud.nodes[0].admin("POST", "/cluster/barrier", json!({}));
    cloud.meet();
}

fn metric(node: &Node, name: &str) -> f64 {
    let metrics = get(node.status, "/metrics").map(|answer| answer.text()).unwrap_or_default();
    let value = metrics.lines().find(|line| line.starts_with(name)).and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_default()
}

#[test]
fn exactly_the_limit_is_allowed_over_all_nodes() {
    let cloud = Cloud::start(3);
    let upstream = Upstream::start("from upstream");
    let all: Vec<&Node> = cloud.nodes.iter().collect();
    for limit in [10, 100, 1_000, 10_000] {
        for on in [1, 3] {
            let (name, path) = (format!("limit-{limit}-{on}"), format!("/limit-{limit}-{on}"));
            limited(&cloud, &upstream, &name, "rate-limiting", json!({"year": limit, "policy": "cluster", "fault_tolerant": false}));
            let started = Instant::now();
            let first = burst(&all[..on], &path, limit + limit / 5 + 30);
            let took = started.elapsed();
            let rest = exhaust(&all, &path);
            assert_eq!(allowed(&first) + rest, limit, "on {on} nodes: {first:?} in {took:?}, then {rest}");
        }
    }
    let waited: f64 = all.iter().map(|node| metric(node, "troop_cluster_limits_waited_total")).sum();
    assert!(waited > 0.0);
    assert_eq!(all.iter().map(|node| metric(node, "troop_cluster_limits_passed_total")).sum::<f64>(), 0.0);
}

/// A limit on the way to being used up, whose owner is killed while requests go through all nodes. What is stated: the death of one
/// node overshoots nothing.
#[test]
fn a_limit_survives_the_death_of_its_owner() {
    for limit in [30, 600] {
        let mut cloud = Cloud::start(3);
        let upstream = Upstream::start("from upstream");
        limited(&cloud, &upstream, "limit", "rate-limiting", json!({"year": limit, "policy": "cluster", "fault_tolerant": false}));
        let all: Vec<&Node> = cloud.nodes.iter().collect();
        let mut total = allowed(&burst(&all, "/limit", limit / 3));
        assert!(total > 0 && total <= limit / 3);
        let granted: Vec<f64> = all.iter().map(|node| metric(node, "troop_cluster_limits_granted_total")).collect();
        let owner = granted.iter().position(|granted| *granted > 0.0).expect("an owner");
        let id = status(all[owner])["nodes"].as_array().and_then(|nodes| nodes.iter().find(|node| node["self"] == true).cloned());
        let id = id.expect("itself")["id"].as_str().expect("an id").to_owned();
        let mut gone = cloud.nodes.remove(owner);
        let rest: Vec<&Node> = cloud.nodes.iter().collect();
        std::thread::scope(|scope| {
            let through_it = scope.spawn(|| burst(&[&gone], "/limit", limit / 6));
            let others = scope.spawn(|| burst(&rest, "/limit", limit));
            // In the middle of it.
            wait_for("requests go through", || metric(&gone, "troop_cluster_limits_granted_total") > granted[owner]);
            gone.signal(nix::sys::signal::Signal::SIGKILL);
            total += allowed(&through_it.join().expect("a client"));
            total += allowed(&others.join().expect("a client"));
        });
        assert!(total <= limit, "{total} of {limit}");
        gone.kill();
        // Two of three nodes give two thirds, and what is used is not forgotten.
        total += exhaust(&rest, "/limit");
        assert!(total <= limit, "{total} of {limit}");
        // Once it is forgotten the two give all but what it has taken with it.
        wait_for("it is missed", || rest[0].admin_answer("DELETE", &format!("/cluster/nodes/{id}"), &Value::Null).status == 204);
        wait_for("it is forgotten", || status(rest[1])["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2));
        total += exhaust(&rest, "/limit");
        assert!(total <= limit && total + limit / 3 >= limit, "{total} of {limit}");
        // It comes back with nothing and is told what is spent.
        let back = gone.restart();
        wait_for("it is back", || status(&back)["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["alive"] == true)));
        cloud.nodes.push(back);
        let all: Vec<&Node> = cloud.nodes.iter().collect();
        total += exhaust(&all, "/limit");
        assert!(total <= limit, "{total} of {limit}");
    }
}

/// Each node holds something that it has not spent. One that stops hands it back; of one that is killed it counts as spent. Either
/// goes on with what it had, also when it is asked before it has seen the others.
#[test]
fn what_a_stopped_node_had_goes_back_and_a_restarted_one_has_nothing_once_more() {
    let limit = 600;
    for stopped in [true, false] {
        let mut cloud = Cloud::start(3);
        let upstream = Upstream::start("from upstream");
        limited(&cloud, &upstream, "limit", "rate-limiting", json!({"year": limit, "policy": "cluster", "fault_tolerant": false}));
        let mut total: u64 = cloud.nodes.iter().map(|node| allowed(&burst(&[node], "/limit", 30))).sum();
        assert_eq!(total, 90);
        let mut gone = cloud.nodes.remove(2);
        if stopped {
            gone.signal(nix::sys::signal::Signal::SIGTERM);
            assert_eq!(gone.ended(), Some(0));
        } else {
            gone.kill();
        }
        let back = gone.restart();
        total += allowed(&burst(&[&back], "/limit", 60));
        cloud.nodes.push(back);
        cloud.meet();
        let all: Vec<&Node> = cloud.nodes.iter().collect();
        total += allowed(&burst(&all, "/limit", limit));
        total += exhaust(&all, "/limit");
        assert!(total <= limit && (total == limit) == stopped, "{total} of {limit}, stopped: {stopped}");
        assert!(total + limit / 3 >= limit, "{total} of {limit}");
    }
}

/// One of three nodes is cut off, early in a window and late in it, without having heard what the others had spent. What is stated: each
/// side gives at most its part, so that it overshoots by nothing early and by the part of the small side late.
#[test]
fn a_partition_overshoots_by_what_is_stated_and_by_nothing_when_it_is_over() {
    let limit = 300;
    let wired = Wired::start(3);
    let upstream = Upstream::start("from upstream");
    let all: Vec<&Node> = wired.cloud.nodes.iter().collect();
    let owned = || -> Vec<f64> { all.iter().map(|node| metric(node, "troop_cluster_limits_windows{role=\"owned\"}")).collect() };
    let config = json!({"year": limit, "policy": "cluster", "fault_tolerant": false});
    for (name, before, most) in [("early", 60, limit), ("late", 270, limit + limit / 3)] {
        let path = format!("/{name}");
        limited(&wired.cloud, &upstream, name, "rate-limiting", config.clone());
        let first = owned();
        assert_eq!(allowed(&burst(&all[..1], &path, 1)), 1);
        // The owner and the one after it keep the window's books; the third has heard nothing.
        let keeps = || owned().iter().zip(&first).map(|(now, first)| now > first).collect::<Vec<bool>>();
        wait_for("two nodes keep the books", || keeps().iter().filter(|keeps| **keeps).count() == 2);
        let alone = keeps().iter().position(|keeps| !keeps).expect("a third node");
        let (one, two) = (vec![all[alone]], all.iter().copied().filter(|node| node.admin != all[alone].admin).collect::<Vec<_>>());
        assert_eq!(allowed(&burst(&two, &path, before - 1)), before - 1);
        wired.cut(alone);
        // Nobody has noticed yet.
        let (mut large, mut small) = std::thread::scope(|scope| {
            let large = scope.spawn(|| allowed(&burst(&two, &path, limit)));
            let small = allowed(&burst(&one, &path, limit));
            (large.join().expect("clients"), small)
        });
        wired.until_missed(alone);
        large += exhaust(&two, &path);
        small += exhaust(&one, &path);
        let total = before + large + small;
        // What the large side holds from before it may spend.
        let part = if before > limit / 2 { limit } else { limit * 2 / 3 };
        assert!(before + large <= part, "{name}: {before} and {large} of {limit}");
        assert!(small <= limit / 3 && total <= most, "{name}: {total} of {limit}, {small} on the small side");
        // Late in the window there is an overshoot, or this would show nothing.
        assert_eq!(total > limit, before > limit / 2, "{name}: {total} of {limit}");
        wired.mend();
        let after = allowed(&burst(&all, &path, limit)) + exhaust(&all, &path);
        assert!(after <= limit.saturating_sub(total), "{name}: {total}, then {after} of {limit}");
        assert!(total + after + limit / 5 >= limit, "{name}: {total}, then {after} of {limit}");
    }
    limited(&wired.cloud, &upstream, "after", "rate-limiting", config);
    assert_eq!(allowed(&burst(&all, "/after", limit + 100)) + exhaust(&all, "/after"), limit);
}

/// The owner hangs: requests pass until it is missed, as the plugin says, and each of them is known.
#[test]
fn while_an_owner_hangs_requests_pass_and_are_known() {
    let limit = 30;
    let cloud = Cloud::start(3);
    let upstream = Upstream::start("from upstream");
    limited(&cloud, &upstream, "limit", "rate-limiting", json!({"year": limit, "policy": "cluster"}));
    let all: Vec<&Node> = cloud.nodes.iter().collect();
    let mut total = allowed(&burst(&all, "/limit", limit / 3));
    let granted: Vec<f64> = all.iter().map(|node| metric(node, "troop_cluster_limits_granted_total")).collect();
    let owner = granted.iter().position(|granted| *granted > 0.0).expect("an owner");
    let rest: Vec<&Node> = all.iter().copied().filter(|node| node.admin != all[owner].admin).collect();
    all[owner].signal(nix::sys::signal::Signal::SIGSTOP);
    let (_, head) = Client::new(rest[0].proxy, "/limit").and_then(|mut client| client.ask()).expect("an answer");
    let first = u64::from(head.contains(" 200 "));
    assert!(first == 1 && !head.to_lowercase().contains("ratelimit"), "{head}");
    total += first;
    // Until the node is missed: from then on the successor decides.
    let missed = || status(rest[0])["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(|node| node["alive"] == false));
    while !missed() {
        total += allowed(&burst(&rest, "/limit", 6));
    }
    total += exhaust(&rest, "/limit");
    all[owner].signal(nix::sys::signal::Signal::SIGCONT);
    cloud.meet();
    total += exhaust(&all, "/limit");
    let passed: f64 = all.iter().map(|node| metric(node, "troop_cluster_limits_passed_total")).sum();
    assert!(passed >= 1.0 && total as f64 - passed <= limit as f64, "{total} of {limit}, {passed} passed");
    assert!(total as f64 - passed >= limit as f64 * 0.8, "{total} of {limit}, {passed} passed");
    assert!(rest.iter().any(|node| node.log().contains("the owner of a limit does not answer in time")));
}

#[test]
fn costs_are_counted_over_all_nodes_and_headers_are_as_ever() {
    let cloud = Cloud::start(3);
    let upstream = Upstream::telling("x-kong-limit: video=1\r\n", "from upstream");
    let limits = json!({"video": {"year": 20}});
    limited(&cloud, &upstream, "costs", "response-ratelimiting", json!({"limits": limits, "policy": "cluster", "fault_tolerant": false}));
    let mut clients: Vec<Client> = cloud.nodes.iter().map(|node| Client::new(node.proxy, "/costs").expect("a connection")).collect();
    let mut statuses = Vec::new();
    for n in 0..30 {
        let (status, head) = clients[n % 3].ask().expect("an answer");
        statuses.push(status);
        let head = head.to_lowercase();
        assert!(head.contains("x-ratelimit-limit-video-year: 20") && !head.contains("x-kong-limit"), "{head}");
        if n == 0 {
            assert!(head.contains("x-ratelimit-remaining-video-year: 19"), "{head}");
        }
    }
    assert_eq!(statuses, [vec![200; 20], vec![429; 10]].concat());
    publish(&cloud.nodes[1], "plain", &upstream);
    cloud.nodes[1].admin("POST", "/routes/plain/plugins", json!({"name": "rate-limiting", "config": {"year": 2, "policy": "cluster"}}));
    cloud.nodes[1].admin("POST", "/cluster/barrier", json!({}));
    let mut clients: Vec<Client> = cloud.nodes.iter().map(|node| Client::new(node.proxy, "/plain").expect("a connection")).collect();
    for (client, status, left) in [(0, 200, 1), (1, 200, 0), (2, 429, 0)] {
        let (told, head) = clients[client].ask().expect("an answer");
        assert_eq!(told, status);
        let head = head.to_lowercase();
        for header in ["x-ratelimit-limit-year: 2", "ratelimit-limit: 2", "ratelimit-reset: "] {
            assert!(head.contains(header), "{header}: {head}");
        }
        for header in ["x-ratelimit-remaining-year", "ratelimit-remaining"] {
            assert!(head.contains(&format!("{header}: {left}")), "{header}: {head}");
        }
        assert_eq!(head.contains("retry-after: "), status == 429, "{head}");
    }
}
