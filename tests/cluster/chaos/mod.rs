//! What must hold whatever happens to nodes, their network, their disks and their clocks: real processes, and somebody who
//! writes all the while. What was measured is written to standard error.

mod clock;
mod crash;
mod disk;
mod partition;
mod rolling;
mod scale;
mod strangers;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Cloud;
use crate::support::{Node, ask, get};

fn figure(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says why a test does nothing here.
fn skipped(why: &str) {
    figure(&format!("skipped: {why}"));
}

/// How much of something: what the environment says, or the little that is done every time.
fn number_of(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What writers were told: consumers that are there, and those that are not any more. What got no answer is neither.
#[derive(Default)]
struct Ledger {
    there: BTreeSet<String>,
    gone: BTreeSet<String>,
    refused: usize,
    unanswered: usize,
}

impl Ledger {
    fn join(mut self, other: Self) -> Self {
        self.there.extend(other.there);
        self.gone.extend(other.gone);
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self
    }

    fn acknowledged(&self) -> usize {
        self.there.len() + 2 * self.gone.len()
    }

    /// Everything that was acknowledged holds on this node.
    fn check(&self, node: &Node) {
        let all = consumers(node);
        let lost: Vec<_> = self.there.difference(&all).collect();
        assert!(lost.is_empty(), "{} acknowledged writes are lost: {lost:?}", lost.len());
        let back: Vec<_> = self.gone.intersection(&all).collect();
        assert!(back.is_empty(), "{} acknowledged deletes are undone: {back:?}", back.len());
    }
}

/// The usernames of all consumers.
fn consumers(node: &Node) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut next = "/consumers?size=1000".to_owned();
    loop {
        let page = node.admin("GET", &next, Value::Null);
        all.extend(page["data"].as_array().expect("a list").iter().filter_map(|row| row["username"].as_str()).map(str::to_owned));
        match page["next"].as_str() {
            Some(path) => next = path.to_owned(),
            None => return all,
        }
    }
}

/// Where the nodes of a cluster are at the moment, which changes when they are restarted.
struct Addresses(Mutex<Vec<SocketAddr>>);

impl Addresses {
    fn of(nodes: &[Node], which: impl Fn(&Node) -> SocketAddr) -> Self {
        Self(Mutex::new(nodes.iter().map(which).collect()))
    }

    fn get(&self, number: usize) -> SocketAddr {
        let all = self.0.lock().expect("no panic");
        all[number % all.len()]
    }

    fn set(&self, number: usize, address: SocketAddr) {
        self.0.lock().expect("no panic")[number] = address;
    }
}

/// Writers who go on until they are told to stop, each with its own names.
struct Writers {
    stop: AtomicBool,
    made: AtomicUsize,
    /// Between two writes of a writer.
    pace: Duration,
}

impl Writers {
    fn every(pace: Duration) -> Self {
        Self { stop: AtomicBool::new(false), made: AtomicUsize::new(0), pace }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Writes to the nodes in turn: consumers, of which it deletes some again where it made them.
    fn run(&self, name: &str, admin: &Addresses) -> Ledger {
        let mut ledger = Ledger::default();
        let mut own: Vec<(String, usize)> = Vec::new();
        let begin = Instant::now();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if number % 5 == 4 && !own.is_empty() {
                let (username, node) = own.swap_remove(number * 7 % own.len());
                // Until it is answered nobody knows whether it is there.
                ledger.there.remove(&username);
                match ask(admin.get(node), "DELETE", &format!("/consumers/{username}"), "", b"") {
                    Some(answer) if answer.status == 204 => drop(ledger.gone.insert(username)),
                    Some(_) => ledger.refused += 1,
                    None => ledger.unanswered += 1,
                }
            } else {
                let username = format!("{name}-{number}");
                let body = json!({"username": username}).to_string();
                match ask(admin.get(number), "POST", "/consumers", "Content-Type: application/json\r\n", body.as_bytes()) {
                    Some(answer) if answer.status == 201 => {
                        own.push((username.clone(), number));
                        ledger.there.insert(username);
                    }
                    Some(_) => ledger.refused += 1,
                    None => ledger.unanswered += 1,
                }
            }
            self.made.fetch_add(1, Ordering::Relaxed);
            let next = self.pace * u32::try_from(number + 1).expect("few writes");
            std::thread::sleep(next.saturating_sub(begin.elapsed()).min(self.pace));
        }
        ledger
    }
}

impl Cloud {
    /// How long it takes until all agree.
    fn agreement(&self) -> Duration {
        let begin = Instant::now();
        self.meet();
        begin.elapsed()
    }

    /// Everything that was acknowledged holds on all nodes.
    fn check(&self, ledger: &Ledger) {
        self.nodes.iter().for_each(|node| ledger.check(node));
    }
}

/// The value of a metric that has no labels.
fn metric(node: &Node, name: &str) -> f64 {
    let metrics = get(node.status, "/metrics").map(|answer| answer.text()).unwrap_or_default();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_default()
}
