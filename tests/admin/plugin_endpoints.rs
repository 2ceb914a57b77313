//! Endpoints that plugins bring along.

use serde_json::{Value, json};

use super::node::TestNode;

#[test]
fn kept_answers_are_shown_and_forgotten() {
    let node = TestNode::start();
    let key = "11".repeat(32);
    let kept = node.get(&format!("/proxy-cache/{key}")).expect(200);
    assert_eq!(
        kept,
        json!({
            "status": 200,
            "headers": {"X-Cache-Key": key, "X-Cache-Status": "Miss"},
            "body": "kept",
            "body_len": 4,
            "timestamp": 1,
            "ttl": 300,
            "version": 1,
            "req_body": "",
        })
    );
    for path in [format!("/proxy-cache/{}", "12".repeat(32)), "/proxy-cache/x".to_owned()] {
        assert_eq!(node.get(&path).expect(404), json!({"message": "Not found"}));
        assert_eq!(node.delete(&path).status, 404);
    }
    assert_eq!(node.delete(&format!("/proxy-cache/{key}")).status, 204);
    assert_eq!(node.delete(&format!("/proxy-cache/{key}")).status, 404);
    assert_eq!(node.delete("/proxy-cache").status, 204);
    assert_eq!(node.get("/proxy-cache").status, 405);
}

#[test]
fn kept_answers_of_a_configuration() {
    let node = TestNode::start();
    let key = "11".repeat(32);
    let plugin = |name: &str, config: Value| {
        let row = node.post("/plugins", json!({"name": name, "config": config})).expect(201);
        row["id"].as_str().expect("an id").to_owned()
    };
    let (cache, other) = (plugin("proxy-cache", json!({"strategy": "memory"})), plugin("key-auth", json!({})));
    for id in [other.as_str(), "4e13f54a-bbf1-47a8-8777-255fed7116f2", "proxy-cache"] {
        assert_eq!(node.get(&format!("/proxy-cache/{id}/caches/{key}")).status, 404, "{id}");
        assert_eq!(node.delete(&format!("/proxy-cache/{id}/caches/{key}")).status, 404, "{id}");
    }
    assert_eq!(node.get(&format!("/proxy-cache/{cache}/caches/x")).status, 404);
    assert_eq!(node.get(&format!("/proxy-cache/{cache}/caches/{key}")).expect(200)["body"], "kept");
    assert_eq!(node.delete(&format!("/proxy-cache/{cache}/caches/{key}")).status, 204);
    assert_eq!(node.get(&format!("/proxy-cache/{cache}/caches/{key}")).status, 404);
    assert_eq!(node.delete(&format!("/proxy-cache/{cache}")).status, 404);
}

#[test]
fn the_memory_of_kept_answers() {
    let dictionaries = TestNode::start().get("/status?unit=b").expect(200)["memory"]["lua_shared_dicts"].clone();
    assert_eq!(dictionaries["kong_db_cache"]["capacity"], 128 << 20);
    assert!(dictionaries["kong_db_cache"]["allocated_slabs"].as_u64() > Some(0));
}
