//! The resolver against a DNS server of the tests' own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record as WireRecord, RecordType as WireType};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

use super::{DnsOptions, Order, start};
use crate::balancer::dns::{DnsError, RecordType, Resolved, Resolver};

/// Records by name; whether the server answers at all, and with which code where it has nothing.
#[derive(Default)]
pub struct Zone {
    records: Mutex<HashMap<String, Vec<(u32, RData)>>>,
    broken: Mutex<Option<ResponseCode>>,
    asked: AtomicUsize,
}

impl Zone {
    pub fn set(&self, name: &str, ttl: u32, records: &[RData]) {
        let records = records.iter().map(|data| (ttl, data.clone())).collect();
        self.records.lock().insert(format!("{name}."), records);
    }

    fn remove(&self, name: &str) {
        self.records.lock().remove(&format!("{name}."));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn answer(&self, query: &Message) -> Message {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answer = query.clone();
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.authoritative = true;
        answer.metadata.recursion_available = true;
        let Some(question) = query.queries.first() else { return answer };
        if let Some(code) = *self.broken.lock() {
            answer.metadata.response_code = code;
            return answer;
        }
        let records = self.records.lock();
        let mut name = question.name().clone();
        answer.metadata.response_code = ResponseCode::NXDomain;
        while let Some(found) = records.get(&name.to_ascii().to_ascii_lowercase()) {
            answer.metadata.response_code = ResponseCode::NoError;
            let mut alias = None;
            for (ttl, data) in found {
                let wanted = data.record_type() == question.query_type() || data.record_type() == WireType::CNAME;
                if wanted {
                    answer.answers.push(WireRecord::from_rdata(name.clone(), *ttl, data.clone()));
                }
                if let RData::CNAME(CNAME(target)) = data {
                    alias = Some(target.clone());
                }
            }
            match alias {
                Some(target) => name = target,
                None => break,
            }
        }
        answer
    }
}

pub fn a(ip: &str) -> RData {
    RData::A(A(ip.parse().expect("an address")))
}

fn aaaa(ip: &str) -> RData {
    RData::AAAA(AAAA(ip.parse().expect("an address")))
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).expect("a name")
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, name(target)))
}

/// Serves a zone on a free UDP port for as long as the test's runtime lives.
pub async fn serve() -> (Arc<Zone>, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("a bound socket");
    let zone = Arc::new(Zone::default());
    actix_rt::spawn({
        let zone = zone.clone();
        async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(buffer.get(..length).unwrap_or_default()).expect("a DNS message");
                let answer = zone.answer(&query).to_vec().expect("a DNS message");
                socket.send_to(&answer, from).await.expect("the answer is sent");
            }
        }
    });
    (zone, address)
}

pub fn options(server: SocketAddr) -> DnsOptions {
    DnsOptions { servers: vec![server], resolv_conf: "/nonexistent".into(), hosts_file: "/nonexistent".into(), ..DnsOptions::default() }
}

pub fn resolver(options: DnsOptions) -> Resolver {
    start(&actix_rt::Arbiter::current(), options)
}

fn ips(resolved: &Resolved) -> Vec<String> {
    let mut ips: Vec<String> = resolved.records.iter().flat_map(|record| record.addresses.iter().map(IpAddr::to_string)).collect();
    ips.sort();
    ips
}

async fn found(resolver: &Resolver, name: &str) -> Arc<Resolved> {
    resolver.resolve(name).await.expect("the name resolves")
}

#[actix_rt::test]
async fn addresses_services_and_aliases() {
    let (zone, server) = serve().await;
    zone.set("a.test", 60, &[a("10.0.0.1"), a("10.0.0.2")]);
    zone.set("six.test", 60, &[aaaa("2001:db8::1")]);
    zone.set("alias.test", 30, &[RData::CNAME(CNAME(name("a.test")))]);
    zone.set("srv.test", 60, &[srv(1, 5, 81, "one.test"), srv(1, 0, 0, "alias.test"), srv(2, 9, 99, "a.test")]);
    zone.set("one.test", 20, &[a("10.0.0.3")]);
    let order = vec![Order::Last, Order::Srv, Order::A, Order::Aaaa, Order::Cname];
    let resolver = resolver(DnsOptions { order, ..options(server) });

    let plain = found(&resolver, "A.test").await;
    assert_eq!((plain.kind, ips(&plain)), (RecordType::A, vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()]));
    assert_eq!(ips(&*found(&resolver, "six.test").await), ["2001:db8::1"]);

    let alias = found(&resolver, "alias.test").await;
    assert_eq!(ips(&alias), ["10.0.0.1", "10.0.0.2"]);
    let left = alias.expires.saturating_duration_since(Instant::now());
    assert!((25..=30).contains(&left.as_secs()), "the alias's time counts too: {left:?}");

    let services = found(&resolver, "srv.test").await;
    let mut records: Vec<_> =
        services.records.iter().map(|r| (r.target.as_deref().unwrap_or_default(), r.port, r.weight, r.addresses.len())).collect();
    records.sort();
    assert_eq!(records, [("alias.test", None, 1, 2), ("one.test", Some(81), 5, 1)], "the second priority is left out");
    assert_eq!(services.kind, RecordType::Srv);

    let asked = zone.asked();
    for name in ["a.test", "six.test", "alias.test", "srv.test"] {
        found(&resolver, name).await;
    }
    assert_eq!(zone.asked(), asked, "everything is cached");
}

#[actix_rt::test]
async fn failures_are_told_apart_and_cached() {
    let (zone, server) = serve().await;
    zone.set("six.test", 60, &[aaaa("2001:db8::1")]);
    let resolver = resolver(DnsOptions { error_ttl: Duration::from_secs(60), ..options(server) });
    let failed = async |name: &str| resolver.resolve(name).await.err();
    assert_eq!(failed("none.test").await, Some(DnsError::NameError));
    assert_eq!(failed("six.test").await, Some(DnsError::Empty), "AAAA is not in the order");
    assert_eq!(failed("bad name").await.map(|error| error.answer().0), Some(503));
    *zone.broken.lock() = Some(ResponseCode::Refused);
    let refused = failed("later.test").await;
    assert!(matches!(refused, Some(DnsError::Failed(_))), "{refused:?}");
    let asked = zone.asked();
    for name in ["none.test", "six.test", "later.test"] {
        assert!(resolver.cached(name).is_some_and(|answer| answer.is_err()), "{name}");
    }
    assert_eq!(zone.asked(), asked);
    assert_eq!(resolver.counts().failures.load(Ordering::Relaxed), 4);
}

#[actix_rt::test]
async fn requests_for_one_name_share_a_lookup() {
    let (zone, server) = serve().await;
    zone.set("a.test", 60, &[a("10.0.0.1")]);
    let resolver = resolver(DnsOptions { order: vec![Order::A], ..options(server) });
    let all = futures_util::future::join_all((0..50).map(|_| resolver.resolve("a.test"))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(zone.asked(), 1);
}

#[actix_rt::test]
async fn expired_answers_are_given_while_they_are_looked_up_again() {
    let (zone, server) = serve().await;
    zone.set("a.test", 60, &[a("10.0.0.1")]);
    let valid_ttl = Some(Duration::from_millis(20));
    let resolver = resolver(DnsOptions { valid_ttl, error_ttl: Duration::ZERO, not_found_ttl: Duration::ZERO, ..options(server) });
    let first = found(&resolver, "a.test").await;
    tokio::time::sleep_until(first.expires.into()).await;
    zone.set("a.test", 60, &[a("10.0.0.2")]);
    let stale = resolver.cached("a.test").expect("a stale answer").expect("an address");
    assert_eq!(ips(&stale), ["10.0.0.1"]);
    let fresh = async {
        loop {
            let answer = found(&resolver, "a.test").await;
            if ips(&answer) == ["10.0.0.2"] {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let fresh = tokio::time::timeout(Duration::from_secs(5), fresh).await.expect("the refresh comes");

    // Nothing takes the place of a stale answer but another answer.
    zone.remove("a.test");
    tokio::time::sleep_until(fresh.expires.into()).await;
    let failures = resolver.counts().failures.load(Ordering::Relaxed);
    while resolver.counts().failures.load(Ordering::Relaxed) < failures + 2 {
        assert_eq!(ips(&*found(&resolver, "a.test").await), ["10.0.0.2"]);
        tokio::task::yield_now().await;
    }
}

#[actix_rt::test]
async fn records_without_a_lifetime_are_looked_up_each_time() {
    let (zone, server) = serve().await;
    zone.set("a.test", 0, &[a("10.0.0.1")]);
    let resolver = resolver(DnsOptions { order: vec![Order::A], ..options(server) });
    for round in 1..=3 {
        assert!(found(&resolver, "a.test").await.transient);
        assert_eq!(zone.asked(), round);
    }
}

#[actix_rt::test]
async fn hosts_file_and_search_domains() {
    let (zone, server) = serve().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (hosts_file, resolv_conf) = (folder.path().join("hosts"), folder.path().join("resolv.conf"));
    std::fs::write(&hosts_file, "# comment\n10.9.9.9 Box box.local # too\n::1 six\n10.9.9.8 box\n").expect("written");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\nsearch corp.test\noptions ndots:1\n").expect("written");
    let resolver = resolver(DnsOptions { hosts_file, resolv_conf, ..options(server) });
    assert_eq!(ips(&*found(&resolver, "BOX").await), ["10.9.9.8", "10.9.9.9"]);
    assert_eq!(ips(&*found(&resolver, "box.local").await), ["10.9.9.9"]);
    assert_eq!(ips(&*found(&resolver, "six").await), ["::1"]);
    assert_eq!(ips(&*found(&resolver, "localhost").await), ["127.0.0.1"]);
    assert_eq!(zone.asked(), 0);

    zone.set("web.corp.test", 60, &[a("10.0.0.7")]);
    zone.set("web.other.test", 60, &[a("10.0.0.8")]);
    assert_eq!(ips(&*found(&resolver, "web").await), ["10.0.0.7"]);
    assert_eq!(ips(&*found(&resolver, "web.other.test").await), ["10.0.0.8"]);
    assert_eq!(resolver.resolve("web.").await.err(), Some(DnsError::NameError), "a full name is not searched");
}
