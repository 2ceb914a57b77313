use std::time::{Duration, Instant, SystemTime};

use actix_rt::Arbiter;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use redis::{Pipeline, Value};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use self::server::RedisServer;
use super::Connections;
use crate::actors::resolver;
use crate::plugin::counters::{Moment, Period};
use crate::plugin::redis::{Redis, RedisError, Server, ServerTls};
use crate::plugin::redis_counters::RedisCounter;

#[path = "../../../tests/support/ports.rs"]
mod ports;
#[path = "../../../tests/support/redis.rs"]
#[allow(dead_code, reason = "the integration tests use all of it")]
mod server;

/// Connections that are kept on a thread of their own.
fn node(authorities: Vec<CertificateDer<'static>>) -> Connections {
    let arbiter = Arbiter::new().handle();
    let resolver = resolver::start(&arbiter, Default::default());
    Connections::new(arbiter, resolver, authorities, 1)
}

fn at(port: u16) -> Server {
    Server { host: "127.0.0.1".into(), port, timeout: Duration::from_secs(10), login: None, database: 0, tls: None }
}

fn ping() -> Pipeline {
    let mut commands = Pipeline::new();
    commands.cmd("PING");
    commands
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < Duration::from_secs(30), "waited for too long: {what}");
        actix_rt::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Connections that the server has, besides the one that asks.
fn connections(server: &RedisServer) -> usize {
    server.ask::<String>("CLIENT", "LIST").lines().count() - 1
}

#[actix_rt::test]
async fn bytes_go_in_and_come_out() {
    let (server, node) = (RedisServer::start(), node(Vec::new()));
    let link = node.link(&Server { database: 3, ..at(server.port) });
    let (key, value) = (b"k\0\xff".as_slice(), b"\r\n\0\xff".as_slice());
    assert_eq!(link.get(key).await, Ok(None));
    link.set(key, value, Duration::from_secs(100)).await.unwrap();
    assert_eq!(link.get(key).await.unwrap().as_deref(), Some(value));
    let script = "return {redis.call('pttl', KEYS[1]), ARGV[1], #KEYS, #ARGV}";
    let Value::Array(answer) = link.script(script, &[key], &[value, b"b"]).await.unwrap() else { panic!("a table") };
    let Value::Int(ttl) = answer[0] else { panic!("a number") };
    assert!((90_000..=100_000).contains(&ttl), "{ttl}");
    assert_eq!(answer[1..], [Value::BulkString(value.to_vec()), Value::Int(1), Value::Int(2)]);
    assert_eq!(link.delete(&[key, b"other"]).await, Ok(1));
    assert_eq!(link.delete(&[]).await, Ok(0));
    assert_eq!(link.get(key).await, Ok(None));
    assert_eq!(node.failures(), 0);
    let refused = link.script("return redis.call('nonsense')", &[], &[]).await.unwrap_err();
    assert!(matches!(&refused, RedisError::Refused(words) if words.contains("Unknown Redis command")), "{refused}");
    assert!(!refused.unsent());
    assert_eq!((link.ask(Pipeline::new()).await, node.failures()), (Ok(Vec::new()), 1));
}

#[actix_rt::test]
async fn a_server_has_one_connection_as_long_as_somebody_keeps_it() {
    let (server, node) = (RedisServer::start(), node(Vec::new()));
    let links = [node.link(&at(server.port)), node.link(&at(server.port))];
    let other = node.link(&Server { database: 1, ..at(server.port) });
    for link in links.iter().chain([&other]) {
        link.ask(ping()).await.unwrap();
    }
    assert_eq!(connections(&server), 2);
    drop(other);
    eventually("the other database's connection is closed", async || connections(&server) == 1).await;
    links[1].ask(ping()).await.unwrap();
    drop(links);
    eventually("no connection is left", async || connections(&server) == 0).await;
}

#[actix_rt::test]
async fn what_is_told_arrives_also_when_the_link_is_dropped() {
    let (server, node) = (RedisServer::start(), node(Vec::new()));
    let link = node.link(&at(server.port));
    link.ask(ping()).await.unwrap();
    let mut commands = Pipeline::new();
    for _ in 0..2500 {
        commands.cmd("INCR").arg("n");
    }
    link.tell(commands.clone());
    drop(link);
    eventually("all is counted", async || server.ask::<Option<u32>>("GET", "n") == Some(2500)).await;
    eventually("the connection is closed", async || connections(&server) == 0).await;
    assert_eq!(node.failures(), 0);
}

#[actix_rt::test]
async fn a_server_that_is_gone_is_noticed_at_once_and_found_again() {
    let (mut server, node) = (RedisServer::start(), node(Vec::new()));
    let link = node.link(&at(server.port));
    link.ask(ping()).await.unwrap();
    server.kill();
    let started = Instant::now();
    assert!(matches!(link.ask(ping()).await, Err(RedisError::Lost(_) | RedisError::Away(_))));
    eventually("it is known to be away", async || matches!(link.ask(ping()).await, Err(RedisError::Away(_)))).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(node.failures() >= 2);
    server.restart();
    actix_rt::time::sleep(Duration::from_millis(15)).await;
    assert!(link.ask(ping()).await.is_ok(), "found by the first who needs it");

    // what is told meanwhile is sent later, as far as there is room
    server.kill();
    eventually("it is known to be away", async || matches!(link.ask(ping()).await, Err(RedisError::Away(_)))).await;
    let mut commands = Pipeline::new();
    for _ in 0..6000 {
        commands.cmd("INCR").arg("n");
    }
    link.tell(commands.clone());
    let failures = node.failures();
    link.tell(commands);
    assert_eq!(node.failures(), failures + 1);
    server.restart();
    eventually("all is counted", async || server.ask::<Option<u32>>("GET", "n") == Some(6000)).await;
}

#[actix_rt::test]
async fn a_server_that_became_a_replica_is_looked_for_anew() {
    let (server, node) = (RedisServer::start(), node(Vec::new()));
    let link = node.link(&at(server.port));
    let id = async || {
        let mut commands = Pipeline::new();
        commands.cmd("CLIENT").arg("ID");
        link.ask(commands).await
    };
    let first = id().await.unwrap();
    server.ask::<()>("REPLICAOF", ("127.0.0.1", "1"));
    let refused = link.set(b"k", b"v", Duration::from_secs(9)).await.unwrap_err();
    assert!(matches!(&refused, RedisError::Refused(words) if words.contains("READONLY")), "{refused}");
    eventually("there is another connection", async || {
        let refused = link.set(b"k", b"v", Duration::from_secs(9)).await;
        refused.is_err() && id().await.is_ok_and(|id| id != first)
    })
    .await;
    server.ask::<()>("REPLICAOF", ("NO", "ONE"));
    eventually("it takes writes", async || link.set(b"k", b"v", Duration::from_secs(9)).await.is_ok()).await;
}

#[actix_rt::test]
async fn no_one_waits_longer_than_the_timeout_and_no_more_than_so_many() {
    let (server, node) = (RedisServer::start(), node(Vec::new()));
    let timeout = Duration::from_millis(400);
    let link = node.link(&Server { timeout, ..at(server.port) });
    eventually("it is connected", async || link.ask(ping()).await.is_ok()).await;
    server.signal(Signal::SIGSTOP);
    let started = Instant::now();
    let answers = join_all((0..4096 + 10).map(|_| link.ask(ping()))).await;
    assert!(started.elapsed() >= timeout && started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(answers.iter().filter(|answer| **answer == Err(RedisError::Busy)).count(), 10);
    assert_eq!(answers[0], Err(RedisError::Late(timeout)));
    eventually("it is known to be away", async || matches!(link.ask(ping()).await, Err(RedisError::Away(_)))).await;
    let started = Instant::now();
    assert!(link.ask(ping()).await.is_err());
    assert!(started.elapsed() < timeout, "nobody waits for what is away: {:?}", started.elapsed());
    server.signal(Signal::SIGCONT);
    eventually("it is found again", async || link.ask(ping()).await.is_ok()).await;
}

#[actix_rt::test]
async fn logs_in_with_password_and_user() {
    let server = RedisServer::with(&["--requirepass", "pw", "--user", "bob", "on", ">bobs", "~*", "+@all"], Some("pw"));
    let node = node(Vec::new());
    let login =
        |user: Option<&str>, password: &str| Server { login: Some((user.map(str::to_owned), password.to_owned())), ..at(server.port) };
    node.link(&login(None, "pw")).ask(ping()).await.unwrap();
    node.link(&login(Some("bob"), "bobs")).ask(ping()).await.unwrap();
    let refused = node.link(&login(Some("bob"), "wrong-secret")).ask(ping()).await.unwrap_err();
    assert!(matches!(&refused, RedisError::Away(why) if why.contains("authentication failed")), "{refused}");
    assert!(!refused.to_string().contains("wrong-secret") && refused.unsent());
    let refused = node.link(&at(server.port)).ask(ping()).await.unwrap_err();
    assert!(matches!(&refused, RedisError::Refused(why) if why.contains("NOAUTH")), "{refused}");
}

#[actix_rt::test]
async fn tls_is_verified_when_that_is_wanted() {
    let server = RedisServer::tls();
    let authority = std::fs::read(server.authority.as_ref().unwrap()).unwrap();
    let (trusting, other) = (node(vec![CertificateDer::from_pem_slice(&authority).unwrap()]), node(Vec::new()));
    let tls = |verify: bool, name: &str| Server { tls: Some(ServerTls { verify, name: name.into() }), ..at(server.port) };
    trusting.link(&tls(true, "redis.test")).ask(ping()).await.unwrap();
    other.link(&tls(false, "127.0.0.1")).ask(ping()).await.unwrap();
    for (node, name) in [(&trusting, "other.test"), (&other, "redis.test")] {
        let refused = node.link(&tls(true, name)).ask(ping()).await.unwrap_err();
        assert!(matches!(&refused, RedisError::Away(why) if why.contains("certificate")), "{refused}");
    }
    assert!(other.link(&Server { timeout: Duration::from_millis(500), ..at(server.port) }).ask(ping()).await.is_err());
}

#[actix_rt::test]
async fn two_nodes_bring_what_they_counted_to_one_server() {
    let mut server = RedisServer::start();
    let nodes = [node(Vec::new()), node(Vec::new())];
    let period = Duration::from_millis(50);
    let [one, two] = nodes.each_ref().map(|node| node.batches(&at(server.port), period));
    assert!(std::sync::Arc::ptr_eq(&one, &nodes[0].batches(&at(server.port), period)));
    let now = Moment::from(SystemTime::now());
    let counters = RedisCounter::all("whose", None, [Period::Day].into_iter(), now);
    let limits = [None, None, None, Some(1000.0), None, None];
    for batches in [&one, &two, &one, &two, &one] {
        assert!(batches.take(&counters, &limits).await.unwrap().counted);
    }
    let counted = || server.ask::<Option<i64>>("GET", &counters[0].key);
    eventually("all is brought", async || counted() == Some(5)).await;
    assert!((1..=86_400).contains(&server.ask::<i64>("TTL", &counters[0].key)));
    drop(one);
    two.take(&counters, &limits).await.unwrap();
    drop(two);
    eventually("the last one is brought", async || counted() == Some(6)).await;

    // what cannot be brought is kept
    let three = nodes[0].batches(&at(server.port), Duration::from_secs(1000));
    three.take(&counters, &limits).await.unwrap();
    three.take(&counters, &limits).await.unwrap();
    server.kill();
    let link = nodes[0].link(&at(server.port));
    eventually("it is known to be away", async || matches!(link.ask(ping()).await, Err(RedisError::Away(_)))).await;
    nodes[0].settle().await;
    assert!(three.take(&counters, &limits).await.is_err(), "nothing is known any more");
    server.restart();
    eventually("it is found again", async || three.take(&counters, &limits).await.is_ok()).await;
    nodes[0].settle().await;
    eventually("what was kept is brought", async || server.ask::<Option<i64>>("GET", &counters[0].key) == Some(2)).await;
}
