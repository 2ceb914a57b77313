//! What a node has acknowledged outlives the node, however it ends.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Node, ask, command, free_ports, wait_for};

/// Writers at once.
const WRITERS: usize = 8;
/// Writes that are begun.
const WRITES: usize = 1000;

fn usernames(node: &Node) -> HashSet<String> {
    let mut names = HashSet::new();
    let mut path = "/consumers?size=1000".to_owned();
    loop {
        let page = node.admin("GET", &path, Value::Null);
        let rows = page["data"].as_array().expect("a list");
        names.extend(rows.iter().filter_map(|row| row["username"].as_str().map(str::to_owned)));
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => return names,
        }
    }
}

#[test]
fn an_acknowledged_write_survives_a_kill() {
    let mut node = Node::start(&[]);
    let admin = node.admin;
    let next = AtomicUsize::new(0);
    let acknowledged = Mutex::new(Vec::new());
    let writer = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let name = format!("user-{n}");
            let body = json!({"username": name}).to_string();
            // No answer: the node was killed.
            let answer = ask(admin, "POST", "/consumers", "Content-Type: application/json\r\n", body.as_bytes());
            let Some(answer) = answer.filter(|_| n < WRITES) else { return };
            assert_eq!(answer.status, 201, "{}", answer.text());
            acknowledged.lock().expect("no writer panics").push(name);
        }
    };
    std::thread::scope(|scope| {
        (0..WRITERS).for_each(|_| drop(scope.spawn(writer)));
        wait_for("half of the writes", || acknowledged.lock().expect("no writer panics").len() >= WRITES / 2);
        node.kill();
    });
    let acknowledged = acknowledged.into_inner().expect("no writer panics");
    assert!(acknowledged.len() < WRITES, "the node was killed in the middle");
    let found = usernames(&node.restart());
    let lost: Vec<_> = acknowledged.iter().filter(|name| !found.contains(*name)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());
}

#[test]
fn a_damaged_store_ends_the_start_with_advice() {
    let directory = tempfile::tempdir().expect("a directory");
    let prefix = directory.path().join("prefix");
    std::fs::create_dir_all(prefix.join("data")).expect("a directory");
    std::fs::write(prefix.join("data/troop.redb"), "this is no store").expect("a file");
    let status = command(&prefix, &[], free_ports()).status().expect("the gateway's process");
    let told = std::fs::read_to_string(prefix.with_extension("log")).expect("its log");
    assert!(!status.success(), "{told}");
    assert!(told.contains("troop.redb") && told.contains("restore it from a backup"), "{told}");
}

#[test]
fn a_second_node_on_the_same_prefix_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let prefix = directory.path().join("prefix");
    let mut first = command(&prefix, &[], free_ports()).spawn().expect("the gateway's process");
    wait_for("the first node has the store", || prefix.join("data/troop.redb").exists());
    let status = command(&prefix, &[], free_ports()).status().expect("the gateway's process");
    let told = std::fs::read_to_string(prefix.with_extension("log")).expect("its log");
    first.kill().and_then(|()| first.wait()).expect("the first node runs");
    assert!(!status.success(), "{told}");
    assert!(told.contains("prefix"), "{told}");
}
