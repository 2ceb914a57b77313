//! Nodes that share their configuration: processes on this machine, with certificates as `troop cluster` makes them.

mod authority;
mod chaos;
mod commands;
mod history;
mod limits;
mod versions;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Node, Upstream, ask, free_ports, get, program, wait_for};

/// The nodes of a cluster and the folder with their certificates. The first is the seed of the others.
struct Cloud {
    directory: tempfile::TempDir,
    listens: Vec<SocketAddr>,
    nodes: Vec<Node>,
}

/// Runs `troop cluster`; what it writes to standard output.
fn troop(arguments: &[&str]) -> String {
    let output = Command::new(program()).arg("cluster").args(arguments).stdin(Stdio::null()).output().expect("the program runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a text")
}

impl Cloud {
    fn start(nodes: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        troop(&["init", "--dir", text(&directory.path().join("0"))]);
        let mut cloud = Self { directory, listens: Vec::new(), nodes: Vec::new() };
        for _ in 0..nodes {
            cloud.add();
        }
        cloud.meet();
        cloud
    }

    fn add(&mut self) {
        self.add_with(&[]);
    }

    fn add_with(&mut self, more: &[(&str, &str)]) {
        let number = self.nodes.len();
        let folder = self.directory.path().join(number.to_string());
        if number > 0 {
            let seeds = self.listens[0].to_string();
            join(&self.directory.path().join("0"), &seeds, &folder);
        }
        let [listen] = free_ports();
        self.listens.push(listen);
        let seeds = if number > 0 { self.listens[0].to_string() } else { String::new() };
        self.nodes.push(node_with(&folder, listen, &seeds, &format!("node-{number}"), more));
    }

    /// Waits until all are ready and see each other with the same records.
    fn meet(&self) {
        for node in &self.nodes {
            wait_for("the nodes agree", || {
                let status = status(node);
                let all = status["nodes"].as_array().cloned().unwrap_or_default();
                let agrees = |other: &Value| other["alive"] == true && other["ready"] == true && other["digest"] == all[0]["digest"];
                all.len() == self.nodes.len() && all.iter().all(agrees)
            });
        }
    }
}

fn node(folder: &Path, listen: SocketAddr, seeds: &str, name: &str) -> Node {
    node_with(folder, listen, seeds, name, &[])
}

fn node_with(folder: &Path, listen: SocketAddr, seeds: &str, name: &str, more: &[(&str, &str)]) -> Node {
    let own = settings(folder, listen, seeds, name);
    Node::start(&[&borrowed(&own)[..], more].concat())
}

/// The settings of a node whose certificate is in this folder.
pub fn settings(folder: &Path, listen: SocketAddr, seeds: &str, name: &str) -> [(&'static str, String); 7] {
    let file = |name: &str| text(&folder.join(name)).to_owned();
    [
        ("cluster", "on".to_owned()),
        ("cluster_listen", listen.to_string()),
        ("cluster_seeds", seeds.to_owned()),
        ("cluster_cert", file("node.crt")),
        ("cluster_cert_key", file("node.key")),
        ("cluster_ca_cert", file("ca.crt")),
        ("node_name", name.to_owned()),
    ]
}

pub fn borrowed<'a>(settings: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Invites another node, at the authority in one folder, and writes its certificate to the other folder.
fn join(authority: &Path, seeds: &str, folder: &Path) {
    let token = troop(&["invite", "--dir", text(authority), "--seeds", seeds]);
    troop(&["join", token.trim(), "--dir", text(folder)]);
}

fn status(node: &Node) -> Value {
    get(node.admin, "/cluster/status").map_or(Value::Null, |answer| answer.json())
}

fn ready(node: &Node) -> bool {
    get(node.status, "/status/ready").is_some_and(|answer| answer.status == 200)
}

fn proxies(node: &Node, path: &str) -> bool {
    get(node.proxy, path).is_some_and(|answer| answer.status == 200 && answer.text() == "from upstream")
}

/// A service and a route at one node.
fn publish(node: &Node, name: &str, upstream: &Upstream) {
    node.admin("POST", "/services", json!({"name": name, "url": upstream.url()}));
    node.admin("POST", &format!("/services/{name}/routes"), json!({"name": name, "paths": [format!("/{name}")]}));
}

#[test]
fn what_is_written_at_one_node_is_in_effect_at_all() {
    let cloud = Cloud::start(3);
    let upstream = Upstream::start("from upstream");
    let [a, b, c] = &cloud.nodes[..] else { panic!("three nodes") };
    let body = json!({"name": "first", "url": upstream.url()}).to_string();
    let fields = "Content-Type: application/json\r\nX-Cluster-Wait: all\r\n";
    let written = ask(a.admin, "POST", "/services", fields, body.as_bytes()).expect("an answer");
    assert_eq!((written.status, written.header("x-cluster-applied")), (201, Some("3/3")), "{}", written.text());
    // What is answered as applied is in effect.
    let id = written.json()["id"].as_str().expect("an id").to_owned();
    for node in [b, c] {
        assert_eq!(node.admin("GET", "/services/first", Value::Null)["id"], id.as_str());
    }
    // Each node takes writes, and a look elsewhere can wait for one.
    let route = json!({"name": "first", "paths": ["/first"], "service": {"id": id}}).to_string();
    let fields = "Content-Type: application/json\r\nX-Cluster-Wait: none\r\n";
    let written = ask(b.admin, "POST", "/routes", fields, route.as_bytes()).expect("an answer");
    let stamp = written.header("x-config-stamp").expect("a stamp").to_owned();
    let seen = ask(c.admin, "GET", "/routes/first", &format!("X-Config-Min-Stamp: {stamp}\r\n"), b"").expect("an answer");
    assert_eq!(seen.status, 200, "{}", seen.text());
    let barrier = c.admin("POST", "/cluster/barrier", json!({}));
    assert_eq!(barrier, json!({"reached": true, "missing": []}));
    for node in [a, b, c] {
        wait_for("the route is there", || proxies(node, "/first"));
    }
    // Kong's refusals are the same at every node.
    let refused = c.admin_answer("POST", "/services", &json!({"name": "first", "url": upstream.url()}));
    assert_eq!((refused.status, &refused.json()["fields"]["name"]), (409, &json!("first")));
    assert_eq!(c.admin_answer("POST", "/services", &json!({"name": 1})).status, 400);
    // A change made on what another node wrote.
    c.admin("PATCH", "/services/first", json!({"retries": 3}));
    wait_for("the edit is there", || a.admin("GET", "/services/first", Value::Null)["retries"] == 3);
    assert_eq!(status(a)["nodes"].as_array().map(Vec::len), Some(3));
    let metrics = get(a.status, "/metrics").expect("metrics").text();
    assert!(metrics.contains("troop_cluster_members"), "{metrics}");
    for wrong in ["X-Cluster-Wait: most\r\n", "X-Config-Min-Stamp: x\r\n"] {
        assert_eq!(ask(a.admin, "GET", "/services", wrong, b"").expect("an answer").status, 400);
    }
}

#[test]
fn a_killed_node_has_everything_and_a_fresh_one_gets_it() {
    let mut cloud = Cloud::start(3);
    let upstream = Upstream::start("from upstream");
    publish(&cloud.nodes[0], "before", &upstream);
    let mut gone = cloud.nodes.remove(2);
    gone.kill();
    // While it is away something goes and something comes.
    cloud.nodes[0].admin("POST", "/consumers", json!({"username": "late"}));
    publish(&cloud.nodes[1], "meanwhile", &upstream);
    for path in ["/routes/before", "/services/before"] {
        assert_eq!(cloud.nodes[1].admin_answer("DELETE", path, &Value::Null).status, 204);
    }
    let back = gone.restart();
    cloud.nodes.push(back);
    let back = &cloud.nodes[2];
    wait_for("it catches up", || ready(back) && proxies(back, "/meanwhile"));
    cloud.meet();
    for node in &cloud.nodes {
        assert_eq!(node.admin_answer("GET", "/services/before", &Value::Null).status, 404, "a delete is not undone");
        assert_eq!(node.admin("GET", "/consumers/late", Value::Null)["username"], "late");
        wait_for("the deleted route is gone", || get(node.proxy, "/before").is_some_and(|answer| answer.status == 404));
    }
    cloud.add();
    let fresh = &cloud.nodes[3];
    wait_for("a fresh node gets ready", || ready(fresh));
    assert_eq!(fresh.admin("GET", "/consumers/late", Value::Null)["username"], "late");
    assert!(proxies(fresh, "/meanwhile"));
    cloud.meet();
    // One that is gone for good is taken out.
    let id = status(&cloud.nodes[3])["nodes"].as_array().and_then(|all| all.iter().find(|node| node["self"] == true).cloned());
    let path = format!("/cluster/nodes/{}", id.expect("itself")["id"].as_str().expect("an id"));
    assert_eq!(cloud.nodes[0].admin_answer("DELETE", &path, &Value::Null).status, 409);
    drop(cloud.nodes.pop());
    wait_for("it is missed", || cloud.nodes[0].admin_answer("DELETE", &path, &Value::Null).status == 204);
    cloud.meet();
}

/// As a pod does that Kubernetes starts anew.
#[test]
fn a_node_that_comes_back_at_another_address_is_found() {
    let mut cloud = Cloud::start(3);
    for number in [2, 1] {
        let [listen] = free_ports();
        let node = cloud.nodes.remove(number).restart_with(&[("cluster_listen", listen.to_string())]);
        cloud.nodes.insert(number, node);
        cloud.meet();
        let name = format!("at-{number}");
        let body = json!({"username": name}).to_string();
        let fields = "Content-Type: application/json\r\nX-Cluster-Wait: all\r\n";
        let written = ask(cloud.nodes[0].admin, "POST", "/consumers", fields, body.as_bytes()).expect("an answer");
        assert_eq!((written.status, written.header("x-cluster-applied")), (201, Some("3/3")), "{}", written.text());
        for (_, node) in cloud.nodes.iter().enumerate().filter(|(other, _)| *other != number) {
            wait_for("its address is known", || {
                let nodes = status(node)["nodes"].as_array().cloned().unwrap_or_default();
                nodes.iter().any(|other| other["address"] == listen.to_string())
            });
        }
    }
}

#[test]
fn an_entity_that_is_too_large_is_refused_with_its_size() {
    let cloud = Cloud::start(1);
    let body = json!({"name": "request-termination", "config": {"body": "x".repeat(4_500_000)}});
    let refused = cloud.nodes[0].admin_answer("POST", "/plugins", &body);
    let message = refused.json()["message"].as_str().expect("a message").to_owned();
    assert_eq!(refused.status, 413, "{message}");
    let bytes: usize = message.split(' ').find_map(|word| word.strip_suffix(',')?.parse().ok()).expect("its size");
    assert!(bytes > 4_500_000 && message.ends_with("a cluster takes at most 4194304"), "{message}");
    assert_eq!(cloud.nodes[0].admin("GET", "/plugins", Value::Null)["data"], json!([]));
}

#[test]
fn a_node_that_tells_a_wrong_address_takes_part_and_its_status_says_what_is_wrong() {
    let mut cloud = Cloud::start(1);
    cloud.add_with(&[("cluster_advertise", "127.0.0.1:1")]);
    cloud.meet();
    for (number, node) in cloud.nodes.iter().enumerate() {
        let fields = "Content-Type: application/json\r\nX-Cluster-Wait: all\r\n";
        let written = ask(node.admin, "PUT", &format!("/consumers/of-{number}"), fields, b"{}").expect("an answer");
        assert_eq!(written.header("x-cluster-applied"), Some("2/2"), "{}", written.text());
        wait_for("the trouble is shown", || {
            let all = status(node)["nodes"].as_array().cloned().unwrap_or_default();
            let shown = all.iter().find(|other| other["address"] == "127.0.0.1:1" || other["self"] == true && number == 1);
            let error = shown.and_then(|shown| shown["last_error"].as_str()).unwrap_or_default();
            error.starts_with("cannot be reached at 127.0.0.1:1")
        });
        assert!(node.log().contains("at the address that it tells (cluster_advertise)"), "{}", node.log());
    }
}

#[test]
fn a_name_that_is_given_twice_at_once_has_one_owner() {
    let cloud = Cloud::start(3);
    for round in 0..5 {
        let name = format!("twin-{round}");
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let tasks: Vec<_> = cloud.nodes[..2]
                .iter()
                .map(|node| scope.spawn(|| node.admin_answer("POST", "/consumers", &json!({"username": name})).status))
                .collect();
            tasks.into_iter().map(|task| task.join().expect("an answer")).collect()
        });
        assert!(statuses.contains(&201) || statuses == [409, 409], "{statuses:?}");
        cloud.nodes[2].admin("POST", "/cluster/barrier", json!({}));
        cloud.meet();
        let owners: Vec<Value> = cloud
            .nodes
            .iter()
            .map(|node| node.admin_answer("GET", &format!("/consumers/{name}"), &Value::Null).json()["id"].clone())
            .collect();
        assert!(owners.windows(2).all(|pair| pair[0] == pair[1]), "{owners:?}");
        let created = statuses.iter().filter(|status| **status == 201).count();
        for node in &cloud.nodes {
            let conflicts = node.admin("GET", "/cluster/conflicts", Value::Null);
            let of_name =
                conflicts["data"].as_array().expect("a list").iter().filter(|entry| entry["body"]["username"] == name.as_str()).count();
            assert_eq!(of_name, created.saturating_sub(1), "{conflicts}");
        }
    }
}

#[test]
fn a_name_that_is_given_on_both_sides_of_a_partition_is_shown_as_a_conflict() {
    let mut cloud = Cloud::start(2);
    // Each writes alone, and neither knows that the other does.
    let mut second = cloud.nodes.remove(1);
    second.kill();
    let first_id = cloud.nodes[0].admin("POST", "/consumers", json!({"username": "twin"}))["id"].clone();
    cloud.nodes[0].kill();
    let second = second.restart();
    wait_for("it is ready by itself", || ready(&second));
    let second_id = second.admin("POST", "/consumers", json!({"username": "twin"}))["id"].clone();
    let first = cloud.nodes.remove(0).restart();
    cloud.nodes = vec![first, second];
    cloud.meet();
    for node in &cloud.nodes {
        assert_eq!(node.admin("GET", "/consumers/twin", Value::Null)["id"], first_id, "the older claim");
        let other = node.admin("GET", &format!("/consumers/{}", second_id.as_str().expect("an id")), Value::Null);
        assert_eq!(other["username"], Value::Null);
        let conflicts = node.admin("GET", "/cluster/conflicts", Value::Null);
        assert_eq!(conflicts["data"][0]["id"], second_id, "{conflicts}");
    }
    // An operator solves it.
    cloud.nodes[1].admin("PATCH", &format!("/consumers/{}", second_id.as_str().expect("an id")), json!({"username": "other"}));
    cloud.meet();
    for node in &cloud.nodes {
        assert_eq!(node.admin("GET", "/consumers/other", Value::Null)["id"], second_id);
        assert_eq!(node.admin("GET", "/cluster/conflicts", Value::Null)["data"], json!([]));
    }
}

#[test]
fn a_stranger_is_refused() {
    let cloud = Cloud::start(1);
    cloud.nodes[0].admin("POST", "/consumers", json!({"username": "own"}));
    let folder = cloud.directory.path().join("stranger");
    troop(&["init", "--dir", text(&folder)]);
    let [listen] = free_ports();
    let stranger = node(&folder, listen, &cloud.listens[0].to_string(), "stranger");
    let refused = || {
        let metrics = get(cloud.nodes[0].status, "/metrics").map(|answer| answer.text()).unwrap_or_default();
        let line = metrics.lines().find(|line| line.starts_with("troop_cluster_connections_refused_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).is_some_and(|refused| refused > 0.0)
    };
    wait_for("it is refused", refused);
    assert_eq!(stranger.admin_answer("GET", "/consumers/own", &Value::Null).status, 404);
    assert_eq!(status(&cloud.nodes[0])["nodes"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_node_brings_what_it_had_into_the_cluster_and_its_certificate_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().join("0");
    troop(&["init", "--dir", text(&folder)]);
    let alone = Node::start(&[]);
    alone.admin("POST", "/consumers", json!({"username": "early"}));
    let [listen] = free_ports();
    let one = alone.restart_with(&settings(&folder, listen, "", "one"));
    assert_eq!(one.admin("GET", "/consumers/early", Value::Null)["username"], "early");
    wait_for("it is kept with the cluster", || one.log().contains("keeps its configuration with the cluster"));
    let one = one.restart();
    assert_eq!(one.admin("GET", "/consumers/early", Value::Null)["username"], "early");
    let before = std::fs::read_to_string(folder.join("node.crt")).expect("a certificate");
    troop(&["rotate", "--dir", text(&folder)]);
    assert_ne!(std::fs::read_to_string(folder.join("node.crt")).expect("a certificate"), before);
    one.signal(nix::sys::signal::Signal::SIGHUP);
    wait_for("certificates are read again", || one.log().contains("settings and certificates are read again"));
}
