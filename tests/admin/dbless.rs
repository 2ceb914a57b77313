//! A node without a database: everything can be read, and nothing is written but through `/config`.

use std::sync::Arc;

use serde_json::{Value, json};
use troop::catalog::{Catalog, Row};
use troop::model;
use uuid::Uuid;

use super::client::send;
use super::node::TestNode;

fn row(entity: &str, id: u128, mut body: Value) -> Arc<Row> {
    let id = Uuid::from_u128(id);
    body["id"] = id.to_string().into();
    Arc::new(Row::new(model::entity(entity).expect("an entity"), id, body.as_object().expect("a table")))
}

fn node() -> TestNode {
    let node = TestNode::dbless();
    let times = |mut body: Value| {
        body["created_at"] = 1.into();
        body["updated_at"] = 1.into();
        body
    };
    let service = json!({"name": "s", "host": "h.test", "port": 80, "protocol": "http", "enabled": true, "tags": ["a"]});
    let upstream = json!({"name": "u.test", "algorithm": "round-robin", "slots": 10000});
    let target = json!({"target": "127.0.0.1:9101", "weight": 100, "upstream": {"id": Uuid::from_u128(2)}});
    node.catalog.store(Arc::new(Catalog::of([
        row("services", 1, times(service)),
        row("upstreams", 2, times(upstream)),
        row("targets", 3, times(target)),
        row("routes", 5, times(json!({"name": "r", "paths": ["/"], "service": {"id": Uuid::from_u128(1)}}))),
        row("consumers", 4, times(json!({"username": "bob"}))),
    ])));
    node
}

fn refused(verb: &str, entity: &str, by: &str) -> Value {
    let message = format!("cannot {verb} '{entity}' entities{by} when not using a database");
    json!({"code": 12, "name": "operation unsupported", "message": message})
}

#[test]
fn writes_are_refused() {
    let node = node();
    let by_name = " by 'name'";
    assert_eq!(node.post("/services", json!({"name": "x", "host": "h"})).expect(405), refused("create", "services", ""));
    assert_eq!(node.send("PUT", "/services/s", json!({"host": "h"})).expect(405), refused("create or update", "services", by_name));
    assert_eq!(node.send("PATCH", "/services/s", json!({"port": 81})).expect(405), refused("update", "services", by_name));
    assert_eq!(node.delete("/services/s").expect(405), refused("remove", "services", by_name));
    assert_eq!(node.delete(&format!("/services/{}", Uuid::from_u128(1))).expect(405), refused("remove", "services", ""));
    assert_eq!(node.post("/services/s/routes", json!({"paths": ["/x"]})).expect(405), refused("create", "routes", ""));
    assert_eq!(node.post("/consumers/bob/key-auth", json!({"key": "k"})).expect(405), refused("create", "keyauth_credentials", ""));
    assert_eq!(node.post("/upstreams/u.test/targets", json!({"target": "h:1"})).expect(405), refused("create", "targets", ""));
    assert_eq!(node.delete("/upstreams/u.test/targets/127.0.0.1:9101").expect(405), refused("remove", "targets", ""));
    assert_eq!(node.get("/services").expect(200)["data"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_is_wrong_in_itself_is_said_first() {
    let node = node();
    assert_eq!(node.delete("/services/none").status, 204);
    assert_eq!(node.send("PATCH", "/services/none", json!({})).expect(404)["code"], 6);
    assert_eq!(node.post("/services", json!({})).expect(400)["fields"], json!({"host": "required field missing"}));
    let nonsense = send(node.admin, "POST", "/services", &[("content-type", "application/json")], b"{nope");
    assert_eq!(nonsense.expect(400), json!({"message": "Cannot parse JSON body"}));
    assert_eq!(node.post("/no-such", json!({})).status, 404);
    assert_eq!(send(node.admin, "OPTIONS", "/services", &[], b"").header("allow"), Some("GET, HEAD, OPTIONS, POST"));
    assert_eq!(node.post("/schemas/services/validate", json!({"host": "h"})).status, 200);
}

#[test]
fn reads_and_health_answer() {
    let node = node();
    assert_eq!(node.get("/services?tags=a").expect(200)["data"][0]["name"], "s");
    assert_eq!(node.get("/services/none").status, 404);
    let on_status = |path: &str| send(node.status, "GET", path, &[], b"");
    assert_eq!(on_status("/upstreams/u.test/health").expect(200)["data"][0]["health"], "HEALTHY");
    assert_eq!(on_status("/upstreams/u.test/targets").expect(200)["data"][0]["target"], "127.0.0.1:9101");
    assert_eq!(on_status("/upstreams/u.test/targets/all").status, 200);
    assert_eq!(on_status("/upstreams/u.test/targets/127.0.0.1:9101").status, 200);
    assert_eq!(on_status("/services").status, 404);
    let put = node.send("PUT", "/upstreams/u.test/targets/127.0.0.1:9101/unhealthy", Value::Null);
    assert_eq!(put.expect(400), json!({"message": "no healthchecker found for u.test"}));
}

const ONE: &str = "_format_version: '3.0'\nservices:\n- name: one\n  host: one.test\n";

fn yaml(node: &TestNode, path: &str, text: &str) -> super::client::Answer {
    send(node.admin, "POST", path, &[("content-type", "text/yaml")], text.as_bytes())
}

fn services(node: &TestNode) -> Vec<String> {
    let page = node.get("/services").expect(200);
    page["data"].as_array().expect("rows").iter().map(|s| s["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_document_replaces_everything() {
    let node = node();
    let loaded = yaml(&node, "/config", ONE).expect(201);
    let row = &loaded["services"].as_object().expect("rows by id").values().next().expect("one");
    assert_eq!((&row["name"], &row["retries"], &row["path"]), (&json!("one"), &json!(5), &Value::Null));
    assert_eq!(services(&node), ["one"]);
    assert_eq!(node.get("/consumers").expect(200)["data"], json!([]));
    let exported = node.get("/config").expect(200)["config"].as_str().unwrap_or_default().to_owned();
    assert!(exported.contains("_format_version: '3.0'") && exported.contains("one.test"), "{exported}");
    assert_eq!(yaml(&node, "/config", &exported).status, 201);
    assert_eq!(services(&node), ["one"]);
}

#[test]
fn documents_in_every_form() {
    let node = TestNode::dbless();
    let named = |name: &str| json!({"_format_version": "3.0", "services": [{"name": name, "host": "h.test"}]});
    node.post("/config", named("a")).expect(201);
    assert_eq!(services(&node), ["a"]);
    node.post("/config", json!({"config": named("b").to_string()})).expect(201);
    assert_eq!(services(&node), ["b"]);
    node.post("/config", json!({"config": ONE})).expect(201);
    assert_eq!(services(&node), ["one"]);
    let form = format!("config={}", named("c")).replace('"', "%22");
    node.form("POST", "/config", &form).expect(201);
    assert_eq!(services(&node), ["c"]);
    yaml(&node, "/config", &named("d").to_string()).expect(201);
    assert_eq!(services(&node), ["d"]);
    assert_eq!(yaml(&node, "/config", "").expect(400), json!({"message": "expected a declarative configuration"}));
    assert_eq!(node.send("PUT", "/config", json!({})).status, 405);
    assert_eq!(services(&node), ["d"]);
}

#[test]
fn unchanged_text_is_not_loaded_again() {
    let node = TestNode::dbless();
    let hash = || node.get("/status").expect(200)["configuration_hash"].clone();
    let text = format!("{ONE}# a remark\n").replace("one", "s").replace("s.test", "h.test");
    yaml(&node, "/config", &text).expect(201);
    assert_eq!(hash(), "f9d6812487da2ebb0e3d5c7d5f90b467");
    let again = yaml(&node, "/config?check_hash=1", &text);
    assert_eq!((again.status, again.text()), (304, String::new()));
    assert_eq!(node.post("/config?check_hash=1", json!({"config": text})).status, 304);
    assert_eq!(yaml(&node, "/config", &text).status, 201);
    let table = json!({"_format_version": "3.0", "services": [{"name": "s", "host": "h.test"}]});
    assert_eq!(node.post("/config?check_hash=1", table.clone()).status, 201);
    assert_eq!(node.post("/config?check_hash=1", table).status, 201);
    node.post("/config", json!({"_format_version": "3.0"})).expect(201);
    assert_eq!(hash(), "0".repeat(32));
}

#[test]
fn a_wrong_document_changes_nothing() {
    let node = TestNode::dbless();
    yaml(&node, "/config", ONE).expect(201);
    let wrong = json!({"_format_version": "3.0", "services": [{"name": "s", "tags": ["t"], "retries": "many", "host": "h"}]});
    let refused = node.post("/config", wrong.clone()).expect(400);
    assert_eq!(refused["code"], 14);
    assert_eq!(refused["fields"], json!({"services": [{"retries": "expected an integer"}]}));
    let flat = node.post("/config?flatten_errors=1", wrong).expect(400);
    assert_eq!(flat["fields"], json!({}));
    let first = &flat["flattened_errors"][0];
    assert_eq!((&first["entity_type"], &first["entity_name"], &first["entity_tags"]), (&json!("service"), &json!("s"), &json!(["t"])));
    assert_eq!(first["errors"], json!([{"type": "field", "field": "retries", "message": "expected an integer"}]));
    assert_eq!(yaml(&node, "/config", "a: [1, 2").expect(400)["code"], 14);
    assert_eq!(services(&node), ["one"]);
}
