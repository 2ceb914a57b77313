//! Log files of a whole node: rotation, a stop under load, paths that cannot be written.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::with_route;
use crate::support::{Node, Upstream, get, wait_for};

fn log_to(node: &Node, path: &Path, config: Value) {
    let mut config = config;
    config["path"] = path.to_str().expect("a path is text").into();
    node.admin("POST", "/plugins", json!({"name": "file-log", "config": config}));
}

/// The targets of the requests in a log.
fn logged(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let record = |line: &str| serde_json::from_str::<Value>(line).expect("a record is JSON");
    text.lines().map(|line| record(line)["request"]["uri"].as_str().unwrap_or_default().to_owned()).collect()
}

fn metric(node: &Node, sample: &str) -> f64 {
    let text = get(node.status, "/metrics").expect("an answer").text();
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

#[test]
fn rotation() {
    let upstream = Upstream::start("hello");
    let node = with_route(&upstream);
    let folder = tempfile::tempdir().expect("a folder");
    let (kept, moved) = (folder.path().join("kept"), folder.path().join("kept.1"));
    log_to(&node, &kept, json!({}));
    node.get("/1");
    wait_for("a record", || logged(&kept) == ["/1"]);
    std::fs::rename(&kept, &moved).expect("rotated");
    node.get("/2");
    wait_for("a record in the file that is open", || logged(&moved) == ["/1", "/2"]);
    node.signal(Signal::SIGHUP);
    wait_for("a record in a new file", || {
        node.get("/3");
        !logged(&kept).is_empty()
    });
    assert!(logged(&kept).iter().all(|uri| uri == "/3"));
}

#[test]
fn a_path_that_cannot_be_written_costs_records_alone() {
    let upstream = Upstream::start("hello");
    let node = with_route(&upstream);
    log_to(&node, Path::new("/tmp/"), json!({"reopen": true}));
    for _ in 0..3 {
        assert_eq!(node.get("/").text(), "hello");
    }
    let dropped = "troop_log_records_dropped_total{plugin=\"file-log\",reason=\"sink failed\"}";
    wait_for("dropped records are counted", || metric(&node, dropped) == 3.0);
    assert!(node.log().contains("log records cannot be written"), "{}", node.log());
}

/// What was answered is in the log when the process has ended.
#[test]
fn a_stopping_node_writes_its_records() {
    const REQUESTS: usize = 300;
    let upstream = Upstream::start("hello");
    let mut node = with_route(&upstream);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    log_to(&node, &path, json!({"custom_fields_by_lua": {"mine": "return kong.response.get_status()", "route": "return nil"}}));
    (0..REQUESTS).for_each(|n| assert_eq!(node.get(&format!("/{n}")).status, 200));
    node.signal(Signal::SIGTERM);
    assert_eq!(node.ended(), Some(0));
    assert!(logged(&path).into_iter().eq((0..REQUESTS).map(|n| format!("/{n}"))));
    let text = std::fs::read_to_string(&path).expect("the log");
    assert!(text.lines().all(|line| line.contains("\"mine\":200") && !line.contains("\"route\":")));
}

#[test]
fn a_line_for_each_request_that_is_proxied() {
    let upstream = Upstream::start("hello");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("logs/access.log");
    let node = Node::start(&[("proxy_access_log", path.to_str().expect("a path is text"))]);
    node.admin("POST", "/services", json!({"name": "s", "url": upstream.url()}));
    node.admin("POST", "/services/s/routes", json!({"paths": ["/there"]}));
    node.get("/there?a=1");
    node.get("/elsewhere");
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    wait_for("two lines", || lines().lines().count() == 2);
    assert!(lines().contains("\"GET /there?a=1 HTTP/1.1\" 200 5 "), "{}", lines());
    assert!(lines().contains("\"GET /elsewhere HTTP/1.1\" 404 "), "{}", lines());
}
