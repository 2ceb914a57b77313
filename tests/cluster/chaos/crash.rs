//! Nodes that are killed, and nodes that stand still.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Addresses, Ledger, Writers, figure};
use crate::cluster::{Cloud, status};
use crate::support::wait_for;

/// Writes of three writers, while something happens.
fn while_writing(admin: &Addresses, pace: Duration, happens: impl FnOnce(&Writers)) -> Ledger {
    let writers = Writers::every(pace);
    std::thread::scope(|scope| {
        let tasks = ["a", "b", "c"].map(|name| {
            let writers = &writers;
            scope.spawn(move || writers.run(name, admin))
        });
        happens(&writers);
        writers.stop();
        tasks.into_iter().map(|task| task.join().expect("a writer")).fold(Ledger::default(), Ledger::join)
    })
}

#[test]
fn a_node_that_is_killed_while_all_are_written_to_loses_nothing() {
    let mut cloud = Cloud::start(3);
    let admin = Addresses::of(&cloud.nodes, |node| node.admin);
    let begin = std::time::Instant::now();
    let ledger = while_writing(&admin, Duration::from_millis(30), |writers| {
        let more = |n: usize| {
            let until = writers.made() + n;
            wait_for("writes go on", || writers.made() >= until);
        };
        more(200);
        let mut killed = cloud.nodes.remove(1);
        killed.kill();
        more(100);
        let back = killed.restart();
        admin.set(1, back.admin);
        cloud.nodes.insert(1, back);
        more(200);
    });
    let seconds = begin.elapsed().as_secs_f64();
    let agreement = cloud.agreement();
    cloud.check(&ledger);
    assert!(ledger.there.len() > 100 && ledger.gone.len() > 20, "{} and {}", ledger.there.len(), ledger.gone.len());
    figure(&format!(
        "killed under {:.0} acknowledged writes/s: {} acknowledged, {} refused, {} without an answer, 0 lost; equal {} ms after the last",
        ledger.acknowledged() as f64 / seconds,
        ledger.acknowledged(),
        ledger.refused,
        ledger.unanswered,
        agreement.as_millis(),
    ));
}

#[test]
fn a_node_that_stood_still_catches_up_and_brings_nothing_back() {
    let cloud = Cloud::start(3);
    let [a, b, c] = &cloud.nodes[..] else { panic!("three nodes") };
    for name in ["kept", "deleted", "edited"] {
        a.admin("POST", "/consumers", json!({"username": name}));
    }
    cloud.meet();
    c.signal(Signal::SIGSTOP);
    let stopped = std::time::Instant::now();
    assert_eq!(a.admin_answer("DELETE", "/consumers/deleted", &Value::Null).status, 204);
    b.admin("PATCH", "/consumers/edited", json!({"custom_id": "anew"}));
    let others = Addresses::of(&cloud.nodes[..2], |node| node.admin);
    let ledger = while_writing(&others, Duration::from_millis(60), |_| {
        wait_for("it is missed", || {
            let nodes = status(a)["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().filter(|node| node["alive"] == true).count() == 2
        });
        // Longer than connections are silent before they are given up.
        wait_for("it stands still for a while", || stopped.elapsed() >= Duration::from_secs(15));
    });
    c.signal(Signal::SIGCONT);
    let agreement = cloud.agreement();
    cloud.check(&ledger);
    for node in &cloud.nodes {
        assert_eq!(node.admin_answer("GET", "/consumers/deleted", &Value::Null).status, 404, "a delete is not undone");
        assert_eq!(node.admin("GET", "/consumers/edited", Value::Null)["custom_id"], "anew");
        assert_eq!(node.admin("GET", "/consumers/kept", Value::Null)["username"], "kept");
    }
    // And it takes writes again.
    wait_for("it takes writes", || c.admin_answer("PUT", "/consumers/after", &json!({})).status == 200);
    cloud.meet();
    figure(&format!("stood still for 15 s: {} writes meanwhile, equal {} ms after", ledger.acknowledged(), agreement.as_millis()));
}
