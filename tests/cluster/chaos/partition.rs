//! Partitions of a real network: nodes in network namespaces, with a bridge between them. Needs root.
//! `CLUSTER_PARTITION_SECONDS=300 CLUSTER_PARTITION_WRITES=1000` makes it as long and as busy as what is promised,
//! with `cargo test`: nextest ends a test after five minutes.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::{Ledger, figure, number_of, root, skipped};
use crate::cluster::{status, text, troop};
use crate::support::{Node, ask, get, wait_for};

/// Where nodes speak with each other. Their other listeners are on the loopback of their namespaces.
const PORT: u16 = 8005;

/// Runs `ip`; whether it could be done.
fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

/// A network namespace, gone when it is dropped.
struct Space(String);

impl Space {
    fn new(name: &str) -> Option<Self> {
        let name = format!("troop-{}-{name}", std::process::id());
        let made = ip(&format!("netns add {name}")).then_some(Self(name))?;
        ip(&format!("-n {} link set lo up", made.0)).then_some(made)
    }

    fn ip(&self, arguments: &str) -> bool {
        ip(&format!("-n {} {arguments}", self.0))
    }

    /// Does something inside: processes and connections that are made there belong to it.
    fn within<T: Send>(&self, does: impl FnOnce() -> T + Send) -> T {
        let file = File::open(PathBuf::from("/var/run/netns").join(&self.0)).expect("the namespace");
        let inside = move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may do that");
            does()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

/// Nodes on machines of their own, as far as they can tell. Nodes are dropped before their namespaces.
struct Network {
    nodes: Vec<Node>,
    spaces: Vec<Space>,
    switch: Space,
    _directory: tempfile::TempDir,
}

fn address(number: usize) -> String {
    format!("10.77.0.{}", number + 1)
}

impl Network {
    /// Nothing when this machine does not allow it.
    fn start(count: usize) -> Option<Self> {
        let switch = Space::new("switch")?;
        if !switch.ip("link add bridge type bridge") || !switch.ip("link set bridge up") {
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let folder = |number: usize| directory.path().join(number.to_string());
        troop(&["init", "--dir", text(&folder(0))]);
        let (mut nodes, mut spaces) = (Vec::new(), Vec::new());
        let seeds = (0..count).map(|number| format!("{}:{PORT}", address(number))).collect::<Vec<_>>().join(",");
        for number in 0..count {
            let space = Space::new(&number.to_string())?;
            let (name, here) = (&space.0, address(number));
            let port = format!("port{number}");
            let laid = switch.ip(&format!("link add {port} type veth peer name mesh netns {name}"))
                && switch.ip(&format!("link set {port} master bridge up"))
                && space.ip(&format!("addr add {here}/24 dev mesh"))
                && space.ip("link set mesh up");
            if !laid {
                return None;
            }
            if number > 0 {
                let token = troop(&["invite", "--dir", text(&folder(0)), "--seeds", &seeds]);
                troop(&["join", token.trim(), "--dir", text(&folder(number))]);
            }
            let file = |name: &str| text(&folder(number).join(name)).to_owned();
            let listen = format!("{here}:{PORT}");
            let start = || {
                Node::start(&[
                    ("cluster", "on"),
                    ("cluster_listen", &listen),
                    ("cluster_seeds", &seeds),
                    ("cluster_cert", &file("node.crt")),
                    ("cluster_cert_key", &file("node.key")),
                    ("cluster_ca_cert", &file("ca.crt")),
                    ("node_name", &format!("node-{number}")),
                ])
            };
            nodes.push(space.within(start));
            spaces.push(space);
        }
        let network = Self { nodes, spaces, switch, _directory: directory };
        network.meet();
        Some(network)
    }

    /// At one of the nodes, inside of its namespace.
    fn at<T: Send>(&self, number: usize, does: impl FnOnce(&Node) -> T + Send) -> T {
        self.spaces[number].within(|| does(&self.nodes[number]))
    }

    fn sees(&self, number: usize) -> Vec<Value> {
        self.at(number, |node| status(node)["nodes"].as_array().cloned().unwrap_or_default())
    }

    fn agree(&self) -> bool {
        (0..self.nodes.len()).all(|number| {
            let all = self.sees(number);
            let same = |other: &Value| other["alive"] == true && other["ready"] == true && other["digest"] == all[0]["digest"];
            all.len() == self.nodes.len() && all.iter().all(same)
        })
    }

    fn meet(&self) {
        wait_for("the nodes agree", || self.agree());
    }

    /// Waits until each side of a partition misses the other.
    fn until_parted(&self, sides: &[&[usize]]) {
        for side in sides {
            for number in *side {
                wait_for("the other side is missed", || {
                    self.sees(*number).iter().filter(|node| node["alive"] == true).count() == side.len()
                });
            }
        }
    }
}

/// The nodes' digests as they tell them of themselves, without those of the others.
fn digests(network: &Network) -> Vec<Value> {
    let own = |all: Vec<Value>| all.into_iter().find(|node| node["self"] == true).map(|node| node["digest"].clone());
    (0..network.nodes.len()).filter_map(|number| own(network.sees(number))).collect()
}

/// Writes evenly to one side for a while.
fn write(network: &Network, side: usize, name: &str, writes: u32, time: Duration) -> Ledger {
    network.at(side, |node| {
        let (mut ledger, begin): (Ledger, Instant) = (Ledger::default(), Instant::now());
        for number in 0..writes {
            let username = format!("{name}-{number}");
            // Each fifth is deleted again.
            let (method, path) = ("PUT", format!("/consumers/{username}"));
            match ask(node.admin, method, &path, "Content-Type: application/json\r\n", b"{}") {
                Some(answer) if answer.status == 200 => drop(ledger.there.insert(username.clone())),
                Some(_) => ledger.refused += 1,
                None => ledger.unanswered += 1,
            }
            if number % 5 == 4 && ledger.there.remove(&username) {
                match ask(node.admin, "DELETE", &path, "", b"") {
                    Some(answer) if answer.status == 204 => drop(ledger.gone.insert(username)),
                    _ => ledger.unanswered += 1,
                }
            }
            std::thread::sleep((time * (number + 1) / writes).saturating_sub(begin.elapsed()));
        }
        ledger
    })
}

/// Both sides write while they are parted; afterwards both have everything, and one of two consumers of the same name has it.
fn part(network: &Network, how: &str, cut: impl FnOnce() -> bool, heal: impl FnOnce() -> bool) {
    let time = Duration::from_secs(number_of("CLUSTER_PARTITION_SECONDS", 4).into());
    let writes = number_of("CLUSTER_PARTITION_WRITES", 60);
    assert!(cut(), "{how}: the network is cut");
    network.until_parted(&[&[0, 1], &[2]]);
    let twin = format!("twin-{}", how.replace(' ', "-"));
    let twins = [0, 2].map(|number| network.at(number, |node| node.admin("POST", "/consumers", json!({"username": twin}))["id"].clone()));
    let ledger = std::thread::scope(|scope| {
        let tasks = [0, 1, 2].map(|side| {
            // Two nodes share what one side writes.
            let writes = if side == 2 { writes } else { writes / 2 };
            let name = format!("{}-{side}", how.replace(' ', "-"));
            scope.spawn(move || write(network, side, &name, writes, time))
        });
        tasks.into_iter().map(|task| task.join().expect("a writer")).fold(Ledger::default(), Ledger::join)
    });
    assert_eq!((ledger.refused, ledger.unanswered), (0, 0), "{how}: both sides take writes");
    let begin = Instant::now();
    assert!(heal(), "{how}: the network is whole");
    wait_for("digests are equal", || digests(network).windows(2).all(|pair| pair[0] == pair[1]));
    let equal = begin.elapsed();
    network.meet();
    let met = begin.elapsed();
    // What was seen before the readers looked again counts as it was.
    for number in 0..3 {
        network.at(number, |node| ledger.check(node));
    }
    let mut owners = Vec::new();
    for number in 0..3 {
        let (owner, conflicts) = network.at(number, |node| {
            (
                node.admin("GET", &format!("/consumers/{twin}"), Value::Null)["id"].clone(),
                node.admin("GET", "/cluster/conflicts", Value::Null),
            )
        });
        let loser = twins.iter().find(|id| **id != owner).expect("one of the two");
        let shown = conflicts["data"].as_array().expect("a list").iter().filter(|entry| entry["id"] == *loser).count();
        assert_eq!(shown, 1, "{how}: {conflicts}");
        assert!(!conflicts["data"].as_array().expect("a list").iter().any(|entry| entry["id"] == owner), "{how}: {conflicts}");
        owners.push(owner);
    }
    assert!(owners.iter().all(|owner| *owner == owners[0] && twins.contains(owner)), "{how}: {owners:?} of {twins:?}");
    if time >= Duration::from_secs(300) {
        assert!(equal < Duration::from_secs(5), "{how}: equal after {equal:?}");
    }
    figure(&format!(
        "{how} for {} s: {} acknowledged writes, 0 lost; equal digests {} ms after, all alive and ready {} ms after",
        time.as_secs(),
        ledger.acknowledged(),
        equal.as_millis(),
        met.as_millis(),
    ));
}

#[test]
fn both_sides_of_a_partition_go_on_and_agree_when_it_is_over() {
    if !root() {
        return skipped("network namespaces are for root");
    }
    let Some(network) = Network::start(3) else { return skipped("network namespaces cannot be made here") };
    let far = &network.spaces[2];
    part(&network, "link down", || network.switch.ip("link set port2 down"), || network.switch.ip("link set port2 up"));
    // What the third node sends goes nowhere, and it hears everything.
    let nowhere = |what: &str| [0, 1].iter().all(|number| far.ip(&format!("route {what} blackhole {}/32", address(*number))));
    part(&network, "one way", || nowhere("add"), || nowhere("del"));
    for number in 0..3 {
        let ready: bool = network.at(number, |node: &Node| {
            let listens: SocketAddr = node.status;
            get(listens, "/status/ready").is_some_and(|answer| answer.status == 200)
        });
        assert!(ready);
    }
}
