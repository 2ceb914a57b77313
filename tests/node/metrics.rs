//! What `/metrics` of a whole node shows, against what a real Kong shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex::Regex;
use serde_json::json;

use crate::support::{Node, Upstream, ask, get, wait_for};

/// Families with their types and texts; names with their labels and, of buckets, the bounds: everything but values.
fn shape(text: &str) -> BTreeSet<String> {
    let sample = Regex::new(r"^(\w+)(?:\{(.*)\})? \S+$").expect("a regex");
    let label = Regex::new(r#"(\w+)="((?:[^"\\]|\\.)*)""#).expect("a regex");
    let (mut families, mut helps, mut bounds) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.insert(name, help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.insert(format!("{name} {kind} {}", helps.get(name).unwrap_or(&"")));
        } else {
            let parts = sample.captures(line).unwrap_or_else(|| panic!("a sample: {line}"));
            let labels = parts.get(2).map_or("", |labels| labels.as_str());
            let pairs: Vec<_> = label.captures_iter(labels).map(|pair| (pair[1].to_owned(), pair[2].to_owned())).collect();
            let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
            let all: &mut Vec<String> = bounds.entry(format!("{}{{{}}}", &parts[1], names.join(","))).or_default();
            for (_, bound) in pairs.iter().filter(|(name, _)| name == "le") {
                if !all.contains(bound) {
                    all.push(bound.clone());
                }
            }
        }
    }
    families.extend(bounds.into_iter().map(|(name, bounds)| [vec![name], bounds].concat().join(" ")));
    families
}

fn metrics(node: &Node) -> String {
    get(node.status, "/metrics").expect("the status listener answers").text()
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn names_labels_and_buckets() {
    let upstream = Upstream::start("hello");
    let node = Node::start(&[]);
    node.admin("POST", "/upstreams", json!({"name": "up"}));
    node.admin("POST", "/upstreams/up/targets", json!({"target": upstream.address.to_string()}));
    node.admin("POST", "/services", json!({"name": "s", "host": "up"}));
    node.admin("POST", "/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    let flags = ["status_code_metrics", "latency_metrics", "bandwidth_metrics", "upstream_health_metrics", "per_consumer"];
    let config: serde_json::Map<_, _> = flags.iter().map(|flag| ((*flag).to_owned(), true.into())).collect();
    node.admin("POST", "/plugins", json!({"name": "prometheus", "config": config}));
    let folder = tempfile::tempdir().expect("a folder");
    node.admin("POST", "/plugins", json!({"name": "file-log", "config": {"path": folder.path().join("log")}}));
    assert_eq!(node.get("/").text(), "hello");
    wait_for("the request is counted", || metrics(&node).contains("kong_http_requests_total{"));
    let text = metrics(&node);
    assert_eq!(shape(&get(node.admin, "/metrics").expect("the Admin API answers").text()), shape(&text));

    let shown = shape(&text);
    let kongs = std::fs::read_to_string(golden("metrics.kong.txt")).expect("what Kong shows");
    let missing: Vec<_> = kongs.lines().filter(|line| !shown.contains(*line)).collect();
    assert!(missing.is_empty(), "not shown as Kong does: {missing:#?}\n{text}");
    let lines = shown.into_iter().collect::<Vec<_>>().join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden("metrics.txt"), &lines).expect("the project can be written");
    }
    assert_eq!(lines, std::fs::read_to_string(golden("metrics.txt")).unwrap_or_default(), "UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn bytes_are_those_on_the_wire() {
    let upstream = Upstream::start("hello");
    let node = super::with_route(&upstream);
    node.admin("POST", "/services/s/plugins", json!({"name": "prometheus", "config": {"bandwidth_metrics": true}}));
    let answer = ask(node.proxy, "POST", "/x", "", b"12345").expect("an answer");
    let received = answer.head.len() + 4 + answer.body.len();
    let sent = format!("POST /x HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 5\r\n\r\n12345", node.proxy).len();
    let wanted = |direction, bytes| {
        format!("kong_bandwidth_bytes{{service=\"s\",route=\"r\",direction=\"{direction}\",workspace=\"default\",consumer=\"\"}} {bytes}\n")
    };
    wait_for("the bytes are counted", || {
        let text = metrics(&node);
        text.contains(&wanted("ingress", sent)) && text.contains(&wanted("egress", received))
    });
}

#[test]
fn label_sets_of_what_is_deleted_vanish() {
    let upstream = Upstream::start("hello");
    let node = super::with_route(&upstream);
    node.admin("POST", "/plugins", json!({"name": "prometheus", "config": {"status_code_metrics": true, "bandwidth_metrics": true}}));
    node.get("/");
    wait_for("the request is counted", || metrics(&node).contains("kong_http_requests_total{service=\"s\",route=\"r\""));
    node.admin_answer("DELETE", "/routes/r", &json!(null));
    let text = metrics(&node);
    assert!(!text.contains("route=\"r\"") && text.contains("kong_bandwidth_bytes{type=\"ingress\"}"), "{text}");
}

#[test]
fn nodes_speak_of_themselves_unless_the_plugin_is_not_there() {
    let node = Node::start(&[]);
    let answer = get(node.status, "/metrics").expect("an answer");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    for name in ["kong_node_info{", "kong_nginx_requests_total{", "troop_info{"] {
        assert!(answer.text().contains(name), "{name}");
    }
    let node = Node::start(&[("plugins", "key-auth")]);
    assert_eq!(get(node.status, "/metrics").expect("an answer").status, 404);
}
