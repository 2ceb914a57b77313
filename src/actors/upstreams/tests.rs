//! Upstreams from catalogs: what is built anew and what is kept, probes, names, panics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_rt::Arbiter;
use schema::EntityType;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{Health, Shown, Upstreams, Which, address_health, dns_source, target_health};
use crate::actors::resolver::tests::{a, options, resolver, serve};
use crate::actors::upstream::Panic;
use crate::balancer::{Balancer, NoPeer, Outcome};
use crate::catalog::{Catalog, Row};
use crate::model::{Target, Upstream};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn which(upstream: u128, target: u128, address: Option<&str>) -> Which {
    Which { upstream: id(upstream), target: id(target), address: address.map(str::to_owned) }
}

fn upstream(number: u128, name: &str, more: Value) -> Arc<Row> {
    let mut body = json!({
        "id": id(number), "created_at": 1, "updated_at": 1, "name": name, "algorithm": "round-robin", "hash_on": "none",
        "hash_fallback": "none", "slots": 100, "use_srv_name": false,
        "healthchecks": {
            "threshold": 0,
            "active": {
                "concurrency": 10, "http_path": "/up", "https_verify_certificate": true, "timeout": 1, "type": "http", "headers": {"x-probe": ["1"]},
                "healthy": {"http_statuses": [200, 302], "interval": 0, "successes": 0},
                "unhealthy": {"http_statuses": [429, 500, 503], "interval": 0, "tcp_failures": 0, "timeouts": 0, "http_failures": 0},
            },
            "passive": {
                "type": "http",
                "healthy": {"http_statuses": [200, 201], "successes": 0},
                "unhealthy": {"http_statuses": [429, 500, 503], "tcp_failures": 0, "timeouts": 0, "http_failures": 0},
            },
        },
    });
    merge(&mut body, more);
    Arc::new(Row::new(Upstream::entity(), id(number), body.as_object().expect("a table")))
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value))
        }
        (into, from) => *into = from,
    }
}

fn target(number: u128, upstream: u128, target: &str) -> Arc<Row> {
    let body = json!({
        "id": id(number), "created_at": number as f64, "updated_at": 1.0, "upstream": {"id": id(upstream)}, "target": target, "weight": 100,
    });
    Arc::new(Row::new(Target::entity(), id(number), body.as_object().expect("a table")))
}

async fn node() -> Upstreams {
    let (_, server) = serve().await;
    Upstreams::new(Arbiter::current(), resolver(options(server)), None)
}

/// Waits until something holds; fails after ten seconds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn states(balancer: &Balancer) -> Vec<Shown> {
    balancer.ring().places.iter().map(|place| target_health(balancer, place)).collect()
}

/// A server that answers every request with `status`, or not at all with 0.
struct Server {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        actix_rt::spawn({
            let (status, asked) = (status.clone(), asked.clone());
            async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let (status, asked) = (status.clone(), asked.clone());
                    actix_rt::spawn(async move {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            match stream.read_u8().await {
                                Ok(byte) => head.push(byte),
                                Err(_) => return,
                            }
                        }
                        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                        let wanted = ["get /up http/1.1\r\n", "\r\nhost: 127.0.0.1\r\n", "\r\nx-probe: 1\r\n"];
                        assert!(wanted.iter().all(|part| head.contains(part)), "{head}");
                        asked.fetch_add(1, Ordering::Relaxed);
                        match status.load(Ordering::Relaxed) {
                            0 => std::future::pending().await,
                            status => {
                                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                                // The prober may have gone.
                                let _ = stream.write_all(answer.as_bytes()).await;
                            }
                        }
                    });
                }
            }
        });
        Self { address, status, asked }
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

#[actix_rt::test]
async fn what_has_not_changed_is_kept() {
    let node = node().await;
    let mut rows = vec![
        upstream(1, "a.test", json!({})),
        upstream(2, "b.test", json!({})),
        target(11, 1, "10.0.0.1:80"),
        target(21, 2, "10.0.0.2:80"),
    ];
    let first = node.reconcile(&Catalog::of(rows.clone()));
    assert_eq!(first.len(), 2);
    let again = node.reconcile(&Catalog::of(rows.clone()));
    assert!(Arc::ptr_eq(&first, &again), "nothing changed");

    rows.push(target(12, 1, "10.0.0.3:80"));
    let second = node.reconcile(&Catalog::of(rows.clone()));
    assert!(Arc::ptr_eq(&first["b.test"], &second["b.test"]));
    assert!(!Arc::ptr_eq(&first["a.test"], &second["a.test"]));
    assert_eq!((first["a.test"].ring().places.len(), second["a.test"].ring().places.len()), (1, 2));

    rows.retain(|row| row.id != id(1) && row.id != id(11) && row.id != id(12));
    let third = node.reconcile(&Catalog::of(rows));
    assert_eq!(third.keys().map(|name| &**name).collect::<Vec<_>>(), ["b.test"]);
    assert!(node.balancer(id(1)).is_none());
}

#[actix_rt::test]
async fn states_are_set_by_hand_and_survive_changes() {
    let node = node().await;
    let passive = json!({"healthchecks": {"passive": {"unhealthy": {"http_failures": 1}}}});
    let mut rows = vec![upstream(1, "a.test", passive), target(11, 1, "10.0.0.1:80"), target(12, 1, "10.0.0.2:80")];
    let balancer = node.reconcile(&Catalog::of(rows.clone()))["a.test"].clone();
    assert_eq!(states(&balancer), [Shown::Healthy, Shown::Healthy]);
    let peer = balancer.pick(None, &[], Instant::now()).expect("there is a peer");
    balancer.report(&peer, Outcome::Status(500), None, Instant::now());
    assert_eq!(states(&balancer).iter().filter(|state| **state == Shown::Unhealthy).count(), 1);
    node.set_health(&which(1, 11, None), true).expect("there are checks");
    node.set_health(&which(1, 12, Some("10.0.0.2:80")), false).expect("there are checks");
    node.set_health(&which(1, 12, Some("10.0.0.2:81")), true).expect("an unknown address is no error, as in Kong");
    assert_eq!(states(&balancer), [Shown::Healthy, Shown::Unhealthy]);
    until("the actor hears of both", || node.counts().became_unhealthy.load(Ordering::Relaxed) == 2).await;

    rows.push(target(13, 1, "10.0.0.3:80"));
    let balancer = node.reconcile(&Catalog::of(rows.clone()))["a.test"].clone();
    assert_eq!(states(&balancer), [Shown::Healthy, Shown::Unhealthy, Shown::Healthy]);

    rows[0] = upstream(1, "a.test", json!({}));
    let balancer = node.reconcile(&Catalog::of(rows))["a.test"].clone();
    assert_eq!(states(&balancer), [Shown::ChecksOff; 3]);
    assert!(node.set_health(&which(1, 11, None), false).is_err());
    assert_eq!(balancer.ring().weights(), (300, 0), "without checks everything is available");
}

#[actix_rt::test]
async fn probes_take_targets_out_and_bring_them_back() {
    let (good, bad) = (Server::start().await, Server::start().await);
    let node = node().await;
    let active = json!({"healthchecks": {"active": {
        "timeout": 0.2,
        "healthy": {"interval": 0.02, "successes": 2},
        "unhealthy": {"interval": 0.02, "http_failures": 2, "tcp_failures": 2, "timeouts": 1},
    }}});
    let dead = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("a bound socket");
    let targets = [good.address, bad.address, dead].map(|address| address.to_string());
    let rows = vec![upstream(1, "a.test", active), target(11, 1, &targets[0]), target(12, 1, &targets[1]), target(13, 1, &targets[2])];
    let balancer = node.reconcile(&Catalog::of(rows.clone()))["a.test"].clone();
    use Shown::{Healthy, Unhealthy};
    until("nobody listens at the third", || states(&balancer) == [Healthy, Healthy, Unhealthy]).await;
    bad.set(500);
    until("the second answers 500", || states(&balancer) == [Healthy, Unhealthy, Unhealthy]).await;
    bad.set(200);
    until("the second is back", || states(&balancer) == [Healthy, Healthy, Unhealthy]).await;
    bad.set(0);
    until("the second is silent", || states(&balancer) == [Healthy, Unhealthy, Unhealthy]).await;
    bad.set(302);
    until("the second is back again", || states(&balancer) == [Healthy, Healthy, Unhealthy]).await;
    assert!(node.counts().probe_failures.load(Ordering::Relaxed) >= 5);
    assert!(node.counts().probe_successes.load(Ordering::Relaxed) >= 2);

    // A panic costs a pause.
    let known = |node: &Upstreams| {
        let present = node.shared.present.lock();
        let known = present.by_id.get(&id(1)).expect("the upstream is known");
        (known.actor.clone(), known.checker.as_ref().expect("it is probed").0.clone())
    };
    let (actor, checker) = known(&node);
    checker.address().do_send(Panic);
    actor.address().do_send(Panic);
    until("both were built anew", || checker.restarts() == 1 && actor.restarts() == 1).await;
    bad.set(503);
    until("probes go on", || states(&balancer) == [Healthy, Unhealthy, Unhealthy]).await;
    let heard = node.counts().became_unhealthy.load(Ordering::Relaxed);
    node.set_health(&which(1, 11, None), false).expect("there are checks");
    until("changes are heard of", || node.counts().became_unhealthy.load(Ordering::Relaxed) > heard).await;

    // Without the upstream there are no probes.
    node.reconcile(&Catalog::of([]));
    until("the actors end", || !checker.address().connected() && !actor.address().connected()).await;
    let asked = good.asked.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(good.asked.load(Ordering::Relaxed), asked);
}

#[actix_rt::test]
async fn what_passive_checks_took_out_comes_back_only_with_the_recovery_interval() {
    let server = Server::start().await;
    for recovery in [None, Some(Duration::from_millis(20))] {
        let (_, dns) = serve().await;
        let node = Upstreams::new(Arbiter::current(), resolver(options(dns)), recovery);
        let passive = json!({"healthchecks": {"passive": {"unhealthy": {"http_failures": 1, "tcp_failures": 1}}}});
        let rows = vec![upstream(1, "a.test", passive), target(11, 1, &server.address.to_string())];
        let balancer = node.reconcile(&Catalog::of(rows))["a.test"].clone();
        server.set(503);
        let peer = balancer.pick(None, &[], Instant::now()).expect("there is a peer");
        balancer.report(&peer, Outcome::TcpFailure, None, Instant::now());
        assert_eq!(balancer.pick(None, &[], Instant::now()).err(), Some(NoPeer::Unhealthy));
        if recovery.is_none() {
            assert!(node.shared.present.lock().by_id[&id(1)].checker.is_none());
            continue;
        }
        let failures = || node.counts().probe_failures.load(Ordering::Relaxed);
        until("it is probed while it fails", || failures() >= 2).await;
        assert_eq!(states(&balancer), [Shown::Unhealthy]);
        server.set(200);
        until("it is back", || states(&balancer) == [Shown::Healthy]).await;
    }
}

#[actix_rt::test]
async fn names_are_resolved_again_when_their_time_is_over() {
    let (zone, server) = serve().await;
    zone.set("a.test", 60, &[a("10.0.0.1")]);
    let options = crate::actors::resolver::DnsOptions { valid_ttl: Some(Duration::from_millis(30)), ..options(server) };
    let node = Upstreams::new(Arbiter::current(), resolver(options), None);
    let rows = vec![upstream(1, "u.test", json!({})), target(11, 1, "a.test:80"), target(12, 1, "none.test:80")];
    let balancer = node.reconcile(&Catalog::of(rows))["u.test"].clone();
    let ring = balancer.ring();
    assert!(ring.pending);
    let peer = balancer.peer(None, &[], Instant::now()).await.expect("the request waits for the first answer");
    assert_eq!((peer.addr.to_string().as_str(), peer.host_header(false)), ("10.0.0.1:80", "a.test"));
    until("the other name has failed", || !balancer.ring().pending).await;
    let ring = balancer.ring();
    let sources: Vec<String> = ring.places.iter().map(dns_source).collect();
    assert_eq!(sources, ["A", "dns server error: 3 name error"]);
    assert_eq!(states(&balancer), [Shown::ChecksOff, Shown::DnsError]);

    zone.set("a.test", 60, &[a("10.0.0.2"), a("10.0.0.3")]);
    let mut seen = Vec::new();
    node.each(&mut |at| seen.push(format!("{} {} {} {}", at.upstream, at.target, at.address, at.state)));
    assert_eq!(seen, ["u.test a.test:80 10.0.0.1:80 healthchecks_off", "u.test none.test:80  dns_error"]);
    assert!(node.totals().dns_failures >= 1);

    let addresses = || {
        let ring = balancer.ring();
        let mut ips: Vec<String> = ring.places.iter().flat_map(|place| &place.addresses).map(|address| address.ip.to_string()).collect();
        ips.sort();
        ips
    };
    until("the new addresses", || addresses() == ["10.0.0.2", "10.0.0.3"]).await;
    let place = &balancer.ring().places[0];
    assert!(place.addresses.iter().all(|address| address_health(&balancer, place, address) == Shown::ChecksOff));
}

#[actix_rt::test]
async fn records_without_a_lifetime_are_looked_up_for_each_request() {
    let (zone, server) = serve().await;
    zone.set("a.test", 0, &[a("10.0.0.1")]);
    let node = Upstreams::new(Arbiter::current(), resolver(options(server)), None);
    let rows = vec![upstream(1, "u.test", json!({})), target(11, 1, "a.test:80")];
    let balancer = node.reconcile(&Catalog::of(rows))["u.test"].clone();
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        zone.set("a.test", 0, &[a(ip)]);
        let peer = balancer.peer(None, &[], Instant::now()).await.expect("there is a peer");
        assert_eq!((peer.addr.ip().to_string().as_str(), peer.host_header(false)), (ip, "a.test"));
    }
    let ring = balancer.ring();
    assert_eq!((dns_source(&ring.places[0]).as_str(), &*ring.places[0].addresses[0].ip), ("ttl=0, virtual SRV", "a.test"));
}
