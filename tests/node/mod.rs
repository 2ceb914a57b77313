//! A whole node: live changes, restarts, crashes, drain.

mod cli;
mod http2;
mod logs;
mod metrics;
mod tls;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Node, Upstream, ask, get, wait_for};

fn with_route(upstream: &Upstream) -> Node {
    let node = Node::start(&[]);
    node.admin("POST", "/services", json!({"name": "s", "url": upstream.url()}));
    node.admin("POST", "/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    node
}

#[test]
fn configuration_survives_a_restart() {
    let upstream = Upstream::start("hello");
    let node = with_route(&upstream);
    assert_eq!(node.get("/").text(), "hello");
    let node = node.restart();
    assert_eq!(node.get("/").text(), "hello");
}

/// 200 changes with 1,000 routes configured: each is live when it is answered, and answered within 20 ms (p99; a debug build
/// on a loaded machine gets ten times that).
#[test]
fn a_change_is_live_when_it_is_answered() {
    let upstream = Upstream::start("hello");
    let node = with_route(&upstream);
    for i in 0..1000 {
        node.admin("POST", "/services/s/routes", json!({"name": format!("r{i}"), "paths": [format!("/many/{i}")]}));
    }
    let mut times = Vec::new();
    for i in 0..200 {
        let started = Instant::now();
        node.admin("POST", "/services/s/routes", json!({"name": format!("new{i}"), "paths": [format!("/new/{i}")], "methods": ["PUT"]}));
        times.push(started.elapsed());
        assert_eq!(ask(node.proxy, "PUT", &format!("/new/{i}"), "", b"").expect("an answer").status, 200);
    }
    times.sort_unstable();
    assert!(times[197] < Duration::from_millis(200), "p99 {:?}", times[197]);
}

/// A request sees the configuration before a change or the one after it, never something between.
#[test]
fn no_request_sees_half_a_change() {
    let (one, two) = (Upstream::start("one"), Upstream::start("two"));
    let node = with_route(&one);
    node.admin("POST", "/services/s/plugins", json!({"name": "response-transformer", "config": {"add": {"headers": ["x-at:one"]}}}));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, proxy) = (&stop, node.proxy);
        let reader = scope.spawn(move || {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = get(proxy, "/").expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(matches!(answer.text().as_str(), "one" | "two"), "{}", answer.text());
                seen += 1;
            }
            seen
        });
        for i in 0..50 {
            let url = if i % 2 == 0 { two.url() } else { one.url() };
            node.admin("PATCH", "/services/s", json!({"url": url}));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("a reader") > 10);
    });
}

/// SIGTERM under load: what was asked is answered, then the process ends.
#[test]
fn a_stopping_node_finishes_what_it_has_begun() {
    let upstream = Upstream::start("hello");
    let mut node = with_route(&upstream);
    let mut idle = TcpStream::connect(node.proxy).expect("a connection");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("a request");
    let mut buffer = [0; 1024];
    assert!(idle.read(&mut buffer).expect("an answer") > 0);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (proxy, answered) = (node.proxy, &answered);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    // until the port is closed: then no connection is made any more
                    while TcpStream::connect(proxy).is_ok() {
                        match get(proxy, "/") {
                            Some(answer) => assert_eq!(answer.status, 200),
                            None => break,
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        wait_for("some requests", || answered.load(Ordering::Relaxed) > 10);
        node.signal(Signal::SIGTERM);
        clients.into_iter().for_each(|client| client.join().expect("a client"));
    });
    assert_eq!(node.ended(), Some(0));
}

#[test]
fn a_taken_port_ends_the_start_with_a_sentence() {
    let node = Node::start(&[]);
    let directory = tempfile::tempdir().expect("a directory");
    let prefix = directory.path().join("p");
    let addresses = [node.admin, node.proxy, node.tls, node.status];
    let status = crate::support::command(&prefix, &[], addresses).status().expect("a process");
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(prefix.with_extension("log")).expect("a log");
    assert!(log.contains("cannot listen on") && log.contains("proxy_listen"), "{log}");
}

#[test]
fn status_is_ready_until_the_node_drains() {
    let node = Node::start(&[]);
    wait_for("the status API", || get(node.status, "/status/ready").is_some());
    assert_eq!(get(node.status, "/status/ready").expect("an answer").status, 200);
    let body = json!({"status": "draining"}).to_string();
    let told = ask(node.status, "POST", "/status/ready", "Content-Type: application/json\r\n", body.as_bytes()).expect("an answer");
    assert_eq!(told.status, 204);
    let answer = get(node.status, "/status/ready").expect("an answer");
    assert_eq!((answer.status, answer.json()["message"].clone()), (503, Value::from("draining")));
}
