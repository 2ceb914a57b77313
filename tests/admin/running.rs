//! The Admin API of a gateway that runs: what depends on more than the catalog.

use serde_json::{Value, json};

use crate::support::{Node, ask, get, wait_for};

#[test]
fn no_secret_is_shown() {
    let node = Node::start(&[("pg_password", "hunter2-hunter2"), ("log_level", "info")]);
    let root = get(node.admin, "/").expect("an answer");
    assert_eq!(root.json()["configuration"]["pg_password"], "******");
    assert_eq!(root.json()["configuration"]["log_level"], "info");
    assert!(!root.text().contains("hunter2"), "{}", root.text());
    assert!(!node.log().contains("hunter2"), "{}", node.log());
}

#[test]
fn the_log_level_changes_and_comes_back() {
    let node = Node::start(&[]);
    let level = || node.admin("GET", "/debug/node/log-level", Value::Null)["message"].clone();
    assert_eq!(level(), "log level: notice");
    node.admin("PUT", "/debug/node/log-level/debug", json!({"timeout": 1}));
    assert_eq!(level(), "log level: debug");
    wait_for("the configured level is back", || level() == "log level: notice");
}

#[test]
fn a_drained_node_is_not_ready() {
    let node = Node::start(&[]);
    let ready = || get(node.status, "/status/ready").map(|a| (a.status, a.json()["message"].clone()));
    assert_eq!(ready(), Some((200, "ready".into())));
    let drained = ask(node.status, "POST", "/status/ready", "Content-Type: application/json\r\n", br#"{"status":"draining"}"#);
    assert_eq!(drained.map(|a| a.status), Some(204));
    assert_eq!(ready(), Some((503, "draining".into())));
}

#[test]
fn without_a_database_a_node_is_ready_once_it_is_configured() {
    let node = Node::start(&[("database", "off")]);
    let ready = || get(node.status, "/status/ready").map(|a| (a.status, a.json()["message"].clone()));
    assert_eq!(ready(), Some((503, "no configuration available (empty configuration present)".into())));
    let document = json!({"_format_version": "3.0", "services": [{"name": "s", "host": "h.test"}]});
    node.admin("POST", "/config", document);
    assert_eq!(ready(), Some((200, "ready".into())));
    let refused = node.admin_answer("POST", "/services", &json!({"host": "h"}));
    assert_eq!((refused.status, &refused.json()["code"]), (405, &json!(12)));
    assert_ne!(node.admin("GET", "/status", Value::Null)["configuration_hash"], "0".repeat(32));
}

#[test]
fn counters_of_connections_and_targets_health() {
    let node = Node::start(&[]);
    node.get("/");
    let server = node.admin("GET", "/status", Value::Null)["server"].clone();
    assert!(server["total_requests"].as_u64() >= Some(1), "{server}");
    node.admin("POST", "/upstreams", json!({"name": "u.test"}));
    node.admin("POST", "/upstreams/u.test/targets", json!({"target": "127.0.0.1:9"}));
    let health = node.admin("GET", "/upstreams/u.test/health", Value::Null);
    assert_eq!(health["data"][0]["health"], "HEALTHCHECKS_OFF");
    assert_eq!(health["data"][0]["data"]["addresses"][0]["ip"], "127.0.0.1");
    assert_eq!(health["node_id"], node.admin("GET", "/", Value::Null)["node_id"]);
    let put = |state: &str| node.admin_answer("PUT", &format!("/upstreams/u.test/targets/127.0.0.1:9/{state}"), &Value::Null);
    assert_eq!(put("unhealthy").json(), json!({"message": "no healthchecker found for u.test"}));
    let checks = json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}}});
    node.admin("PATCH", "/upstreams/u.test", checks);
    assert_eq!(put("unhealthy").status, 204);
    let state = || node.admin("GET", "/upstreams/u.test/health", Value::Null)["data"][0]["health"].clone();
    assert_eq!(state(), "UNHEALTHY");
    assert_eq!(put("127.0.0.2/healthy").status, 404);
    assert_eq!(put("127.0.0.1/healthy").status, 204);
    assert_eq!(state(), "HEALTHY");
}

#[test]
fn requests_are_logged_without_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin.log");
    let node = Node::start(&[("admin_access_log", path.to_str().expect("text"))]);
    node.admin("POST", "/consumers", json!({"username": "bob"}));
    node.admin("POST", "/consumers/bob/key-auth", json!({"key": "hunter2"}));
    node.admin("GET", "/consumers/bob/key-auth/hunter2?apikey=hunter2", Value::Null);
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    wait_for("three lines and those of the start", || text().contains("/key-auth/******"));
    assert!(text().contains("\"POST /consumers HTTP/1.1\" 201 "), "{}", text());
    assert!(!text().contains("hunter2"), "{}", text());
}
