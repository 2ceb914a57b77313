//! The four algorithms, rebuilding, thresholds and manual states.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use xxhash_rust::xxh32::xxh32;

use super::dns::{Answer, Lookups, Record, RecordType};
use super::health::Checks;
use super::policy::split;
use super::ring::Memory;
use super::{Algorithm, Balancer, Destination, NoPeer, Outcome, Peer, PeerId, Policy, Resolution, Resolved, Resolver};

/// Looks nothing up: names stay unknown.
struct Never;

impl Lookups for Never {
    fn look_up(&self, _: &str, _: Option<oneshot::Sender<Answer>>) -> bool {
        false
    }
}

fn resolver() -> Resolver {
    Resolver::new(Arc::default(), Arc::new(Never))
}

fn policy(algorithm: Algorithm) -> Policy {
    Policy {
        id: uuid::Uuid::nil(),
        name: "u.test".into(),
        algorithm,
        hashing: super::hash::Hashing::default(),
        slots: 10_000,
        checks: Checks::default(),
        host_header: None,
        use_srv_name: false,
        client_certificate: None,
    }
}

/// Checks from a row's table, with Kong's defaults for what it does not say.
fn checks(healthchecks: serde_json::Value) -> Checks {
    let mut whole = serde_json::json!({
        "threshold": 0,
        "active": {
            "concurrency": 10, "http_path": "/", "https_verify_certificate": true, "timeout": 1, "type": "http",
            "healthy": {"http_statuses": [200, 302], "interval": 0, "successes": 0},
            "unhealthy": {"http_statuses": [429, 500, 503], "interval": 0, "tcp_failures": 0, "timeouts": 0, "http_failures": 0},
        },
        "passive": {
            "type": "http",
            "healthy": {"http_statuses": [200, 201], "successes": 0},
            "unhealthy": {"http_statuses": [429, 500, 503], "tcp_failures": 0, "timeouts": 0, "http_failures": 0},
        },
    });
    merge(&mut whole, healthchecks);
    let rows: crate::model::Healthchecks = serde_json::from_value(whole).expect("the table fits");
    Checks::from(&rows)
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn target(target: &str, weight: u32) -> Destination {
    let (host, port) = split(target);
    Destination { id: uuid::Uuid::nil(), target: target.into(), host: host.into(), port, weight }
}

fn targets(weights: &[u32]) -> Vec<Destination> {
    weights.iter().enumerate().map(|(at, weight)| target(&format!("10.0.0.{at}:80"), *weight)).collect()
}

fn balancer(policy: Policy, targets: Vec<Destination>) -> Balancer {
    Balancer::new(policy, targets, Arc::default(), resolver(), None, Instant::now())
}

fn ip(peer: &Peer) -> String {
    peer.addr.ip().to_string()
}

fn pick(balancer: &Balancer) -> String {
    ip(&balancer.pick(None, &[], Instant::now()).expect("there is a peer"))
}

fn spread(balancer: &Balancer, turns: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..turns {
        *counts.entry(pick(balancer)).or_default() += 1;
    }
    counts
}

fn counts(wanted: &[(&str, usize)]) -> BTreeMap<String, usize> {
    wanted.iter().map(|(ip, count)| ((*ip).to_owned(), *count)).collect()
}

#[test]
fn round_robin_shares_exactly() {
    let balancer = balancer(policy(Algorithm::RoundRobin), targets(&[100, 50, 25, 0]));
    for _ in 0..3 {
        assert_eq!(spread(&balancer, 7), counts(&[("10.0.0.0", 4), ("10.0.0.1", 2), ("10.0.0.2", 1)]));
    }
}

#[test]
fn round_robin_shares_exactly_over_threads() {
    let balancer = balancer(policy(Algorithm::RoundRobin), targets(&[3, 2, 1]));
    let mut total: BTreeMap<String, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| spread(&balancer, 600))).collect();
        for thread in threads {
            for (ip, count) in thread.join().expect("the thread ends") {
                *total.entry(ip).or_default() += count;
            }
        }
    });
    assert_eq!(total, counts(&[("10.0.0.0", 1200), ("10.0.0.1", 800), ("10.0.0.2", 400)]));
}

#[test]
fn no_targets_and_weightless_targets_give_no_peer() {
    for weights in [&[][..], &[0, 0]] {
        for algorithm in [Algorithm::RoundRobin, Algorithm::ConsistentHashing, Algorithm::LeastConnections, Algorithm::Latency] {
            let balancer = balancer(policy(algorithm), targets(weights));
            assert_eq!(balancer.pick(None, &[], Instant::now()).err(), Some(NoPeer::Unhealthy));
            assert!(!balancer.healthy());
        }
    }
}

#[test]
fn a_retry_goes_to_another_peer_while_there_is_one() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::ConsistentHashing, Algorithm::LeastConnections, Algorithm::Latency] {
        let balancer = balancer(policy(algorithm), targets(&[100, 100, 1, 1]));
        for hash in 0..50 {
            let mut tried: Vec<PeerId> = Vec::new();
            for _ in 0..4 {
                let peer = balancer.pick(Some(hash * 85_000_000), &tried, Instant::now()).expect("one is left");
                assert!(!tried.contains(&peer.id()), "{algorithm:?}");
                tried.push(peer.id());
            }
            let again = balancer.pick(Some(hash), &tried, Instant::now());
            match algorithm {
                Algorithm::Latency => assert_eq!(again.err(), Some(NoPeer::NoneLeft)),
                _ => assert!(again.is_ok(), "{algorithm:?}"),
            }
        }
    }
}

fn owners(balancer: &Balancer) -> Vec<String> {
    (0..3000u32)
        .map(|key| {
            let hash = xxh32(key.to_string().as_bytes(), 0);
            ip(&balancer.pick(Some(hash), &[], Instant::now()).expect("there is a peer"))
        })
        .collect()
}

#[test]
fn hashing_is_stable_and_a_removed_target_moves_only_its_share() {
    let all = owners(&balancer(policy(Algorithm::ConsistentHashing), targets(&[100; 5])));
    let mut reversed = targets(&[100; 5]);
    reversed.reverse();
    assert_eq!(all, owners(&balancer(policy(Algorithm::ConsistentHashing), reversed)), "the order of rows does not matter");

    let mut counts: HashMap<&String, usize> = HashMap::new();
    for owner in &all {
        *counts.entry(owner).or_default() += 1;
    }
    assert!(counts.len() == 5 && counts.values().all(|count| (400..800).contains(count)), "{counts:?}");

    let mut fewer = targets(&[100; 5]);
    fewer.remove(2);
    let left = owners(&balancer(policy(Algorithm::ConsistentHashing), fewer));
    for (before, after) in all.iter().zip(&left) {
        assert!(before == after || before == "10.0.0.2", "{before} moved to {after}");
        assert_ne!(after, "10.0.0.2");
    }
}

#[test]
fn hashing_follows_weights_and_walks_past_what_is_down() {
    let balancer = balancer(Policy { checks: checks(passive(1)), ..policy(Algorithm::ConsistentHashing) }, targets(&[300, 100]));
    let before = owners(&balancer);
    let first = before.iter().filter(|owner| *owner == "10.0.0.0").count();
    assert!((1950..2550).contains(&first), "{first} of 3000");
    assert!(balancer.set_health("10.0.0.1:80", None, false));
    let during = owners(&balancer);
    assert!(during.iter().all(|owner| owner == "10.0.0.0"));
    assert!(balancer.set_health("10.0.0.1:80", None, true));
    assert_eq!(owners(&balancer), before);
}

#[test]
fn least_connections_counts_what_is_under_way() {
    let balancer = balancer(policy(Algorithm::LeastConnections), targets(&[200, 100]));
    let mut held: Vec<Peer> = (0..6).map(|_| balancer.pick(None, &[], Instant::now()).expect("there is a peer")).collect();
    assert_eq!(held.iter().filter(|peer| ip(peer) == "10.0.0.0").count(), 4);
    // Four of the first and two of the second are under way; without the second's, it is its turn.
    held.retain(|peer| ip(peer) == "10.0.0.0");
    assert_eq!(pick(&balancer), "10.0.0.1");
    drop(held);
    assert_eq!(pick(&balancer), "10.0.0.0");
}

#[test]
fn idle_peers_of_the_same_weight_take_turns() {
    let balancer = balancer(policy(Algorithm::LeastConnections), targets(&[100, 100, 100]));
    assert_eq!(spread(&balancer, 9).into_values().collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn latency_prefers_the_fast() {
    let balancer = balancer(policy(Algorithm::Latency), targets(&[100, 100]));
    let mut now = Instant::now();
    let mut slow = 0;
    for _ in 0..1000 {
        now += Duration::from_millis(20);
        let peer = balancer.pick(None, &[], now).expect("there is a peer");
        let took = if ip(&peer) == "10.0.0.0" { 500 } else { 5 };
        slow += usize::from(took == 500);
        balancer.report(&peer, Outcome::Status(200), Some(Duration::from_millis(took)), now);
    }
    assert!((1..150).contains(&slow), "{slow} of 1000 to the slow one");
}

fn passive(failures: u32) -> serde_json::Value {
    serde_json::json!({"passive": {"unhealthy": {"http_failures": failures, "tcp_failures": failures, "timeouts": failures}}})
}

#[test]
fn passive_checks_take_an_address_out_at_the_limit() {
    let balancer = balancer(Policy { checks: checks(passive(2)), ..policy(Algorithm::RoundRobin) }, targets(&[100, 100]));
    let now = Instant::now();
    let mut failed = 0;
    for _ in 0..20 {
        let peer = balancer.pick(None, &[], now).expect("there is a peer");
        let bad = ip(&peer) == "10.0.0.0";
        failed += usize::from(bad);
        balancer.report(&peer, Outcome::Status(if bad { 500 } else { 200 }), None, now);
    }
    assert_eq!(failed, 2);
    assert!(balancer.set_health("10.0.0.0:80", Some(("10.0.0.0", 80)), true));
    assert!(!balancer.set_health("10.0.0.0:80", Some(("10.0.0.0", 81)), true));
    assert!(!balancer.set_health("10.0.0.7:80", None, true));
    assert_eq!(spread(&balancer, 4).len(), 2);
}

#[test]
fn a_rebuild_keeps_states_and_forgets_late() {
    let memory = Arc::new(Memory::default());
    let start = Instant::now();
    let build = |weights: &[u32], at| {
        let policy = Policy { checks: checks(passive(1)), ..policy(Algorithm::RoundRobin) };
        Balancer::new(policy, targets(weights), memory.clone(), resolver(), None, at)
    };
    let first = build(&[100, 100], start);
    first.set_health("10.0.0.1:80", None, false);
    let second = build(&[100, 10, 100], start);
    assert_eq!(spread(&second, 10), counts(&[("10.0.0.0", 5), ("10.0.0.2", 5)]));
    // A change that an older configuration's request reports shows in the newer one.
    first.set_health("10.0.0.0:80", None, false);
    assert_eq!(spread(&second, 5), counts(&[("10.0.0.2", 5)]));

    build(&[100], start);
    let soon = build(&[100, 100, 100], start + Duration::from_secs(200));
    assert_eq!(spread(&soon, 5), counts(&[("10.0.0.2", 5)]));
    build(&[100], start + Duration::from_secs(300));
    let late = build(&[100, 100, 100], start + Duration::from_secs(601));
    assert_eq!(spread(&late, 4), counts(&[("10.0.0.1", 2), ("10.0.0.2", 2)]));
}

#[test]
fn the_threshold_closes_the_whole_upstream() {
    let mut checks = checks(passive(1));
    checks.threshold = 60.0;
    let balancer = balancer(Policy { checks, ..policy(Algorithm::RoundRobin) }, targets(&[60, 20, 20]));
    assert!(balancer.set_health("10.0.0.1:80", None, false));
    assert!(balancer.healthy());
    assert!(balancer.set_health("10.0.0.2:80", None, false));
    assert_eq!(balancer.pick(None, &[], Instant::now()).err(), Some(NoPeer::Unhealthy), "60 of 100 is not more than 60");
    assert!(balancer.set_health("10.0.0.2:80", None, true));
    assert_eq!(spread(&balancer, 4).into_values().collect::<Vec<_>>(), [3, 1]);
}

fn record(target: Option<&str>, ips: &[&str], port: Option<u16>, weight: u32) -> Record {
    let addresses = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
    Record { target: target.map(Into::into), addresses, port, weight }
}

fn found(kind: RecordType, records: Vec<Record>) -> Resolution {
    Resolution::Found(Arc::new(Resolved::new(kind, records, Instant::now(), false)))
}

#[actix_rt::test]
async fn names_become_addresses_when_they_resolve() {
    let name = target("a.test:8080", 50);
    let balancer = Arc::new(balancer(policy(Algorithm::RoundRobin), vec![name.clone()]));
    assert_eq!(balancer.pick(None, &[], Instant::now()).err(), Some(NoPeer::Resolving));
    let waiting = actix_rt::spawn({
        let balancer = balancer.clone();
        async move { balancer.peer(None, &[], Instant::now()).await.map(|peer| (peer.addr.to_string(), peer.host_header(false).to_owned())) }
    });
    tokio::task::yield_now().await;
    balancer.rebuild(vec![(name, found(RecordType::A, vec![record(None, &["10.1.0.1"], None, 1)]))], Instant::now());
    let (addr, host) = waiting.await.expect("the task ends").expect("there is a peer now");
    assert_eq!((&*addr, &*host), ("10.1.0.1:8080", "a.test:8080"));
}

#[test]
fn every_address_of_a_name_has_the_targets_weight_and_srv_records_their_own() {
    let a = target("a.test:80", 100);
    let srv = target("srv.test:80", 100);
    let balancer = balancer(policy(Algorithm::RoundRobin), Vec::new());
    let hosts = found(RecordType::A, vec![record(None, &["10.1.0.1"], None, 1), record(None, &["10.1.0.2"], None, 1)]);
    let services =
        vec![record(Some("one.test"), &["10.2.0.1", "10.2.0.2"], Some(81), 50), record(Some("two.test"), &["10.2.0.3"], None, 150)];
    balancer.rebuild(vec![(a, hosts), (srv, found(RecordType::Srv, services))], Instant::now());
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..16 {
        let peer = balancer.pick(None, &[], Instant::now()).expect("there is a peer");
        *seen.entry(format!("{} {}", peer.addr, peer.host)).or_default() += 1;
    }
    let wanted = [
        ("10.1.0.1:80 a.test", 4),
        ("10.1.0.2:80 a.test", 4),
        ("10.2.0.1:81 srv.test", 1),
        ("10.2.0.2:81 srv.test", 1),
        ("10.2.0.3:80 srv.test", 6),
    ];
    assert_eq!(seen, counts(&wanted));
}

#[test]
fn host_headers() {
    let host = |policy: Policy, destination: &str, resolution: Resolution| {
        let balancer = balancer(policy, Vec::new());
        balancer.rebuild(vec![(target(destination, 1), resolution)], Instant::now());
        let peer = balancer.pick(None, &[], Instant::now()).expect("there is a peer");
        peer.host_header(false).to_owned()
    };
    let base = || policy(Algorithm::RoundRobin);
    let a = || found(RecordType::A, vec![record(None, &["10.1.0.1"], None, 1)]);
    let srv = || found(RecordType::Srv, vec![record(Some("one.test"), &["10.2.0.1"], Some(81), 1)]);
    assert_eq!(host(base(), "a.test:80", a()), "a.test");
    assert_eq!(host(base(), "a.test:81", a()), "a.test:81");
    assert_eq!(host(base(), "srv.test:80", srv()), "srv.test:81");
    assert_eq!(host(Policy { use_srv_name: true, ..base() }, "srv.test:80", srv()), "one.test:81");
    assert_eq!(host(Policy { host_header: Some("h.test".into()), ..base() }, "a.test:80", a()), "h.test");
}
