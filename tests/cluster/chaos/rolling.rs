//! A rolling restart behind a load balancer.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Addresses, Ledger, Writers, figure};
use crate::cluster::{Cloud, proxies, publish};
use crate::support::{Upstream, ask, get, wait_for};

/// What a load balancer does: asks the nodes whether they are ready, and sends requests to those that are, in turn.
struct Balancer {
    proxy: Addresses,
    status: Addresses,
    up: Mutex<[bool; 3]>,
    next: AtomicUsize,
    stop: AtomicBool,
    well: AtomicUsize,
    turned_away: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Balancer {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_up(&self, node: usize) -> bool {
        self.up.lock().expect("no panic")[node]
    }

    fn look(&self) {
        while !self.stopped() {
            for node in 0..3 {
                let ready = get(self.status.get(node), "/status/ready").is_some_and(|answer| answer.status == 200);
                self.up.lock().expect("no panic")[node] = ready;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A node that is up; nothing when none is.
    fn choose(&self) -> Option<usize> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..3).map(|n| (first + n) % 3).find(|node| self.is_up(*node))
    }

    /// Requests on connections of their own, or many on one.
    fn send(&self, keep: bool) {
        let mut kept: Option<(usize, SocketAddr, TcpStream)> = None;
        while !self.stopped() {
            let going_on = kept.take().filter(|(node, address, _)| self.is_up(*node) && self.proxy.get(*node) == *address);
            let (node, address, mut stream) = match going_on {
                Some(kept) => kept,
                None => {
                    let Some(node) = self.choose() else {
                        self.failed.lock().expect("no panic").push("no node is ready".to_owned());
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    };
                    let address = self.proxy.get(node);
                    match TcpStream::connect(address) {
                        Ok(stream) => (node, address, stream),
                        // The balancer has not taken note yet: the next node is asked.
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                            self.turned_away.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        Err(error) => {
                            self.failed.lock().expect("no panic").push(format!("node {node}: {error}"));
                            continue;
                        }
                    }
                }
            };
            match exchange(&mut stream, keep) {
                Ok(open) => {
                    self.well.fetch_add(1, Ordering::Relaxed);
                    kept = open.then_some((node, address, stream));
                }
                Err(why) => self.failed.lock().expect("no panic").push(format!("node {node}: {why}")),
            }
            std::thread::sleep(Duration::from_millis(4));
        }
    }
}

/// A request and its answer; whether the connection may be used again.
fn exchange(stream: &mut TcpStream, keep: bool) -> Result<bool, String> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(|error| error.to_string())?;
    let connection = if keep { "keep-alive" } else { "close" };
    let head = format!("GET /rolling HTTP/1.1\r\nHost: a.test\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(|error| format!("sending: {error}"))?;
    let (mut said, mut piece) = (Vec::new(), [0; 2_048]);
    loop {
        let text = String::from_utf8_lossy(&said);
        if text.ends_with("from upstream") {
            let well = text.starts_with("HTTP/1.1 200");
            return if well { Ok(keep && !text.to_lowercase().contains("connection: close")) } else { Err(text.into_owned()) };
        }
        match stream.read(&mut piece) {
            Ok(0) => return Err(format!("the connection ended after {text:?}")),
            Ok(n) => said.extend_from_slice(&piece[..n]),
            Err(error) => return Err(format!("reading after {text:?}: {error}")),
        }
    }
}

#[test]
fn a_rolling_restart_fails_no_request_and_loses_no_write() {
    let mut cloud = Cloud::start(3);
    let upstream = Upstream::start("from upstream");
    publish(&cloud.nodes[0], "rolling", &upstream);
    cloud.meet();
    for node in &cloud.nodes {
        wait_for("the route is there", || proxies(node, "/rolling"));
    }
    let admin = Addresses::of(&cloud.nodes, |node| node.admin);
    let balancer = Balancer {
        proxy: Addresses::of(&cloud.nodes, |node| node.proxy),
        status: Addresses::of(&cloud.nodes, |node| node.status),
        up: Mutex::new([true; 3]),
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        well: AtomicUsize::new(0),
        turned_away: AtomicUsize::new(0),
        failed: Mutex::new(Vec::new()),
    };
    let writers = Writers::every(Duration::from_millis(30));
    let begin = std::time::Instant::now();
    let ledger: Ledger = std::thread::scope(|scope| {
        scope.spawn(|| balancer.look());
        for keep in [false, false, true, true] {
            let balancer = &balancer;
            scope.spawn(move || balancer.send(keep));
        }
        let writer = scope.spawn(|| writers.run("rolling", &admin));
        for number in 0..3 {
            let mut node = cloud.nodes.remove(number);
            let told = ask(node.status, "POST", "/status/ready", "Content-Type: application/json\r\n", br#"{"status":"draining"}"#);
            assert!(told.is_some_and(|answer| answer.status < 300));
            wait_for("the balancer turns away", || !balancer.is_up(number));
            node.signal(Signal::SIGQUIT);
            assert_eq!(node.ended(), Some(0));
            let back = node.restart();
            admin.set(number, back.admin);
            balancer.proxy.set(number, back.proxy);
            balancer.status.set(number, back.status);
            cloud.nodes.insert(number, back);
            wait_for("the balancer comes back", || balancer.is_up(number));
            let until = balancer.well.load(Ordering::Relaxed) + 500;
            wait_for("requests go on", || balancer.well.load(Ordering::Relaxed) >= until);
        }
        writers.stop();
        balancer.stop.store(true, Ordering::Relaxed);
        writer.join().expect("a writer")
    });
    let seconds = begin.elapsed().as_secs_f64();
    let failed = balancer.failed.into_inner().expect("no panic");
    let well = balancer.well.into_inner();
    assert!(failed.is_empty(), "{} of {} requests failed: {:?}", failed.len(), well + failed.len(), &failed[..failed.len().min(5)]);
    cloud.meet();
    cloud.check(&ledger);
    cloud.nodes[0].admin("PUT", "/consumers/after", json!({}));
    figure(&format!(
        "rolling restart of 3 nodes in {seconds:.1} s: {well} requests, 0 failed, {} sent to the next node as one was refused; {} writes, 0 lost",
        balancer.turned_away.into_inner(),
        ledger.acknowledged(),
    ));
}
