//! Another authority takes the place of the cluster's own while the nodes run.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Cloud, node, status, text, troop};
use crate::support::{Node, free_ports, get, program, wait_for};

/// A new certificate for a node, which uses it at once.
fn rotate(cloud: &Cloud, number: usize) {
    let folder = |number: usize| cloud.directory.path().join(number.to_string());
    let before = reloads(&cloud.nodes[number]);
    troop(&["rotate", "--dir", text(&folder(number)), "--ca", text(&folder(0))]);
    cloud.nodes[number].signal(Signal::SIGHUP);
    wait_for("certificates are read again", || reloads(&cloud.nodes[number]) > before);
}

fn reloads(node: &Node) -> usize {
    node.log().matches("settings and certificates are read again").count()
}

fn authority(cloud: &Cloud, step: &str) {
    troop(&["authority", step, "--dir", text(&cloud.directory.path().join("0"))]);
}

/// A node that has lost all connections makes them anew, with what it and the others show now.
fn meets_again(cloud: &mut Cloud, number: usize) {
    let back = cloud.nodes.remove(number).restart();
    cloud.nodes.insert(number, back);
    cloud.meet();
}

#[test]
fn the_authority_is_replaced_while_the_nodes_run() {
    let mut cloud = Cloud::start(2);
    let path = cloud.directory.path().join("0");
    let dir = text(&path);
    cloud.nodes[0].admin("POST", "/consumers", json!({"username": "before"}));
    // Invited by the authority that is there, and late.
    let stale = troop(&["invite", "--dir", dir, "--seeds", &cloud.listens[0].to_string()]);
    let refuses = |step: &str| {
        let refused = Command::new(program()).args(["cluster", "authority", step, "--dir", dir]).stdin(Stdio::null()).output();
        assert!(!refused.expect("the program runs").status.success(), "{step}");
    };
    refuses("switch");
    refuses("finish");
    authority(&cloud, "begin");
    refuses("begin");
    refuses("finish");
    // The first node trusts both, the second one knows of nothing.
    rotate(&cloud, 0);
    meets_again(&mut cloud, 1);
    rotate(&cloud, 1);
    authority(&cloud, "switch");
    // The second node shows a certificate of the new authority, the first one of the old.
    rotate(&cloud, 1);
    meets_again(&mut cloud, 1);
    cloud.nodes[1].admin("POST", "/consumers", json!({"username": "between"}));
    rotate(&cloud, 0);
    meets_again(&mut cloud, 1);
    authority(&cloud, "finish");
    refuses("finish");
    rotate(&cloud, 0);
    meets_again(&mut cloud, 1);
    rotate(&cloud, 1);
    // A node that joins now knows the new authority alone.
    cloud.add();
    cloud.meet();
    assert_eq!(cloud.nodes[2].admin("GET", "/consumers/between", Value::Null)["username"], "between");
    assert_eq!(std::fs::read_to_string(path.join("ca.crt")).expect("certificates").matches("BEGIN CERTIFICATE").count(), 1);
    // One with a certificate of the old authority is refused.
    let folder = cloud.directory.path().join("stale");
    troop(&["join", stale.trim(), "--dir", text(&folder)]);
    let [listen] = free_ports();
    let stale = node(&folder, listen, &cloud.listens[0].to_string(), "stale");
    wait_for("it is refused", || {
        let metrics = get(cloud.nodes[0].status, "/metrics").map(|answer| answer.text()).unwrap_or_default();
        let line = metrics.lines().find(|line| line.starts_with("troop_cluster_connections_refused_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).is_some_and(|refused| refused > 0.0)
    });
    drop(stale);
    assert_eq!(status(&cloud.nodes[0])["nodes"].as_array().map(Vec::len), Some(3));
}
