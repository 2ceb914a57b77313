//! One row: reading, replacing, changing, deleting, its parents and its children.

use serde_json::{Value, json};

use super::node::TestNode;

const UNKNOWN: &str = "4e13f54a-bbf1-47a8-8777-255fed7116f2";

fn message(text: &str) -> Value {
    json!({"message": text})
}

#[test]
fn rows_by_id_and_by_name() {
    let node = TestNode::start();
    let service = node.service();
    assert_eq!(node.get("/services/svc").expect(200), service);
    assert_eq!(node.get(&format!("/services/{}", service["id"].as_str().unwrap_or_default())).expect(200), service);
    assert_eq!(node.get("/services/none").expect(404), message("Not found"));
    assert_eq!(node.get(&format!("/services/{UNKNOWN}")).expect(404), message("Not found"));
    node.post("/consumers", json!({"username": "a b/c"})).expect(201);
    assert_eq!(node.get("/consumers/a%20b%2Fc").expect(200)["username"], "a b/c");
}

#[test]
fn entities_without_a_name_take_ids_alone() {
    let node = TestNode::start();
    let refused = json!({"code": 1, "name": "invalid primary key", "message": "invalid primary key: '{id=\"expected a valid UUID\"}'", "fields": {"id": "expected a valid UUID"}});
    assert_eq!(node.get("/ca_certificates/nope").expect(400), refused);
    assert_eq!(node.delete("/ca_certificates/nope").expect(400), refused);
}

#[test]
fn put_creates_and_replaces() {
    let node = TestNode::start();
    let created = node.send("PUT", "/services/up", json!({"host": "one.test", "path": "/v1", "retries": 1})).expect(200);
    assert_eq!((&created["name"], &created["retries"]), (&json!("up"), &json!(1)));
    let replaced = node.send("PUT", "/services/up", json!({"host": "two.test", "port": 81})).expect(200);
    assert_eq!(replaced["id"], created["id"]);
    assert_eq!((&replaced["path"], &replaced["retries"], &replaced["port"]), (&json!(null), &json!(5), &json!(81)));
    let by_id = node.send("PUT", &format!("/services/{UNKNOWN}"), json!({"host": "h"})).expect(200);
    assert_eq!((&by_id["id"], &by_id["name"]), (&json!(UNKNOWN), &json!(null)));
}

#[test]
fn patch_merges() {
    let node = TestNode::start();
    node.post("/upstreams", json!({"name": "u", "healthchecks": {"active": {"timeout": 7}}})).expect(201);
    let patched = node.send("PATCH", "/upstreams/u", json!({"healthchecks": {"active": {"concurrency": 3}}, "tags": ["x"]})).expect(200);
    assert_eq!(patched["healthchecks"]["active"]["timeout"], 7);
    assert_eq!(patched["healthchecks"]["active"]["concurrency"], 3);
    assert_eq!(node.send("PATCH", "/upstreams/u", json!({"tags": null})).expect(200)["tags"], json!(null));
    let refused = node.send("PATCH", "/upstreams/u", json!({"name": null})).expect(400);
    assert_eq!(refused["fields"], json!({"name": "required field missing"}));
    let missing = node.send("PATCH", "/upstreams/none", json!({})).expect(404);
    let wanted =
        json!({"code": 6, "name": "not found", "message": "could not find the entity with '{name=\"none\"}'", "fields": {"name": "none"}});
    assert_eq!(missing, wanted);
    let missing = node.send("PATCH", &format!("/upstreams/{UNKNOWN}"), json!({})).expect(404);
    assert_eq!(missing["message"], format!("could not find the entity with primary key '{{id=\"{UNKNOWN}\"}}'"));
}

#[test]
fn delete_is_quiet() {
    let node = TestNode::start();
    node.service();
    node.post("/services/svc/routes", json!({"name": "r", "paths": ["/"]})).expect(201);
    let refused = node.delete("/services/svc").expect(400);
    let wanted = json!({"code": 4, "name": "foreign key violation", "message": "an existing 'routes' entity references this 'services' entity", "fields": {"@referenced_by": "routes"}});
    assert_eq!(refused, wanted);
    for path in ["/routes/r", "/services/svc", "/services/svc", &format!("/services/{UNKNOWN}")] {
        let answer = node.delete(path);
        assert_eq!((answer.status, answer.text(), answer.header("content-type")), (204, String::new(), None), "{path}");
    }
}

#[test]
fn children_are_checked_for_their_parent() {
    let node = TestNode::start();
    node.service();
    node.post("/services", json!({"name": "other", "host": "h"})).expect(201);
    node.post("/services/svc/routes", json!({"name": "r", "paths": ["/"]})).expect(201);
    assert_eq!(node.get("/services/svc/routes/r").expect(200)["name"], "r");
    for path in ["/services/other/routes/r", "/services/none/routes/r", "/services/svc/routes/none"] {
        assert_eq!(node.get(path).expect(404), message("Not found"));
        assert_eq!(node.send("PATCH", path, json!({})).expect(404), message("Not found"));
        assert_eq!(node.delete(path).expect(404), message("Not found"));
    }
    let put = node.send("PUT", "/services/other/routes/new", json!({"paths": ["/n"]})).expect(200);
    assert_eq!(put["service"], json!({"id": node.get("/services/other").expect(200)["id"]}));
    assert_eq!(node.send("PATCH", "/services/other/routes/new", json!({"paths": ["/m"]})).expect(200)["paths"], json!(["/m"]));
    assert_eq!(node.delete("/services/other/routes/new").status, 204);
    assert_eq!(node.get("/routes/new").status, 404);
}

#[test]
fn the_parent_of_a_child() {
    let node = TestNode::start();
    let service = node.service();
    node.post("/services/svc/routes", json!({"name": "r", "paths": ["/"]})).expect(201);
    node.post("/routes", json!({"name": "alone", "paths": ["/a"]})).expect(201);
    assert_eq!(node.get("/routes/r/service").expect(200)["id"], service["id"]);
    assert_eq!(node.send("PATCH", "/routes/r/service", json!({"port": 82})).expect(200)["port"], 82);
    assert_eq!(node.send("PUT", "/routes/r/service", json!({"name": "svc", "host": "new.test"})).expect(200)["host"], "new.test");
    for (method, body) in [("GET", Value::Null), ("PATCH", json!({"port": 1}))] {
        assert_eq!(node.send(method, "/routes/alone/service", body.clone()).expect(404), message("Not found"));
        assert_eq!(node.send(method, "/routes/none/service", body).expect(404), message("Not found"));
    }
    let made = node.send("PUT", "/routes/alone/service", json!({"host": "made.test"})).expect(200);
    assert_eq!(node.get("/routes/alone").expect(200)["service"]["id"], made["id"]);
    assert_eq!(node.delete("/routes/r/service").expect(405), message("Method not allowed"));
}

#[test]
fn uniqueness_and_foreign_keys() {
    let node = TestNode::start();
    node.service();
    let twice = node.post("/services", json!({"name": "svc", "host": "h"})).expect(409);
    let wanted = json!({"code": 5, "name": "unique constraint violation", "message": "UNIQUE violation detected on '{name=\"svc\"}'", "fields": {"name": "svc"}});
    assert_eq!(twice, wanted);
    let refused = node.post("/routes", json!({"paths": ["/x"], "service": {"id": UNKNOWN}})).expect(400);
    assert_eq!(refused["message"], format!("the foreign key '{{id=\"{UNKNOWN}\"}}' does not reference an existing 'services' entity."));
    let refused = node.post("/routes", json!({"methods": ["GET"], "service": {"name": "no"}})).expect(400);
    assert_eq!(refused["code"], 13);
    let refused = node.post("/services", json!({"host": "h", "ttl": 5})).expect(400);
    assert_eq!(refused["fields"], json!({"ttl": "unknown field"}));
}

#[test]
fn targets() {
    let node = TestNode::start();
    node.post("/upstreams", json!({"name": "u"})).expect(201);
    node.post("/upstreams", json!({"name": "other"})).expect(201);
    let first = node.post("/upstreams/u/targets", json!({"target": "127.0.0.1"})).expect(201);
    assert_eq!(first["target"], "127.0.0.1:8000");
    std::thread::sleep(std::time::Duration::from_millis(2));
    node.post("/upstreams/u/targets", json!({"target": "127.0.0.1:9101", "weight": 0})).expect(201);
    let names = |path: &str| {
        let page = node.get(path).expect(200);
        page["data"].as_array().expect("rows").iter().map(|t| t["target"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/upstreams/u/targets"), ["127.0.0.1:9101", "127.0.0.1:8000"]);
    assert_eq!(names("/upstreams/u/targets/all").len(), 2);
    let page = node.get("/upstreams/u/targets?size=1").expect(200);
    assert_eq!((&page["offset"], &page["next"]), (&json!("1"), &json!("/upstreams/u/targets?offset=1&size=1")));
    assert_eq!(names("/upstreams/u/targets?offset=1&size=1"), ["127.0.0.1:8000"]);
    assert_eq!(node.get("/upstreams/u/targets?offset=x").status, 400);
    for named in ["127.0.0.1:8000", "127.0.0.1", first["id"].as_str().unwrap_or_default()] {
        assert_eq!(node.get(&format!("/upstreams/u/targets/{named}")).expect(200)["id"], first["id"]);
        assert_eq!(node.get(&format!("/upstreams/other/targets/{named}")).status, 404);
    }
    assert_eq!(node.send("PATCH", "/upstreams/u/targets/127.0.0.1:8000", json!({"weight": 5})).expect(200)["weight"], 5);
    assert_eq!(node.send("PUT", "/upstreams/u/targets/127.0.0.1:8000", json!({"weight": 6})).expect(200)["weight"], 6);
    assert_eq!(node.send("PUT", "/upstreams/u/targets/nope:1", json!({"weight": 6})).expect(404), message("Not found"));
    let twice = node.post("/upstreams/u/targets", json!({"target": "127.0.0.1:9101"})).expect(409);
    assert_eq!(twice["fields"]["target"], "127.0.0.1:9101");
    assert_eq!(node.delete("/upstreams/u/targets/127.0.0.1:8000").status, 204);
    assert_eq!(node.delete("/upstreams/u/targets/127.0.0.1:8000").status, 404);
}

#[test]
fn health_of_upstreams() {
    let node = TestNode::start();
    let upstream = node.post("/upstreams", json!({"name": "u"})).expect(201);
    node.post("/upstreams/u/targets", json!({"target": "127.0.0.1:9101"})).expect(201);
    node.post("/upstreams/u/targets", json!({"target": "127.0.0.1:9102", "weight": 0})).expect(201);
    let health = node.get("/upstreams/u/health").expect(200);
    let row = |target: &str| health["data"].as_array().expect("rows").iter().find(|r| r["target"] == target).cloned().unwrap_or_default();
    assert_eq!(row("127.0.0.1:9101")["health"], "HEALTHY");
    let data = json!({
        "host": "127.0.0.1", "port": 9101, "dns": "A", "nodeWeight": 100,
        "weight": {"total": 100, "available": 100, "unavailable": 0},
        "addresses": [{"ip": "127.0.0.1", "port": 9101, "weight": 100, "health": "HEALTHY"}],
    });
    assert_eq!(row("127.0.0.1:9101")["data"], data);
    assert_eq!(row("127.0.0.1:9102")["health"], "HEALTHCHECKS_OFF");
    assert_eq!(health["node_id"], "00000000-0000-0000-0000-000000000001");
    let balancer = node.get("/upstreams/u/health?balancer_health=1").expect(200);
    assert_eq!(balancer["data"]["id"], upstream["id"]);
    assert_eq!((&balancer["data"]["health"], &balancer["data"]["balancer_health"]), (&json!("HEALTHY"), &json!("HEALTHY")));
    assert_eq!(balancer["data"]["details"]["hosts"][0]["addresses"][0]["healthy"], true);
    let set = |path: &str| node.send("PUT", path, Value::Null);
    assert_eq!(set("/upstreams/u/targets/127.0.0.1:9101/healthy").status, 204);
    assert_eq!(set("/upstreams/u/targets/127.0.0.1:9101/127.0.0.1/healthy").status, 204);
    assert_eq!(set("/upstreams/u/targets/127.0.0.1:9101/9.9.9.9/unhealthy").status, 404);
    assert_eq!(set("/upstreams/u/targets/none:1/healthy").status, 404);
    assert_eq!(set("/upstreams/u/targets/127.0.0.1:9101/unhealthy").expect(400), message("no healthchecker found for u"));
    assert_eq!(node.post("/upstreams/u/targets/127.0.0.1:9101/healthy", json!({})).status, 405);
    assert_eq!(node.get("/upstreams/none/health").status, 404);
}

#[test]
fn rows_with_an_end() {
    let node = TestNode::start();
    node.post("/consumers", json!({"username": "bob"})).expect(201);
    let made = node.form("POST", "/consumers/bob/key-auth", "key=abc&ttl=100").expect(201);
    assert_eq!(made["ttl"], 100);
    assert!(node.get("/key-auths/abc").expect(200)["ttl"].as_u64().is_some_and(|ttl| (90..=100).contains(&ttl)));
    assert!(node.get("/key-auths").expect(200)["data"][0]["ttl"].as_u64().is_some());
    assert_eq!(node.form("POST", "/consumers/bob/key-auth", "key=x&ttl=soon").expect(400)["fields"], json!({"ttl": "expected a number"}));
    let endless = node.send("PUT", "/consumers/bob/key-auth/other", json!({})).expect(200);
    assert_eq!((&endless["key"], &endless["ttl"]), (&json!("other"), &Value::Null));
    assert_eq!(node.get("/key-auths/other/consumer").expect(200)["username"], "bob");
}

#[test]
fn groups_of_a_consumer_are_named_below_it() {
    let node = TestNode::start();
    node.post("/consumers", json!({"username": "bob"})).expect(201);
    let gold = node.post("/consumers/bob/acls", json!({"group": "gold"})).expect(201);
    assert_eq!(node.get("/consumers/bob/acls/gold").expect(200), gold);
    assert_eq!(node.send("PUT", "/consumers/bob/acls/silver", json!({})).expect(200)["group"], "silver");
    assert_eq!(node.send("PATCH", "/consumers/bob/acls/silver", json!({"tags": ["a"]})).expect(200)["tags"], json!(["a"]));
    assert_eq!(node.delete("/consumers/bob/acls/gold").status, 204);
    assert_eq!(node.get("/consumers/bob/acls/gold").status, 404);
    assert_eq!(node.get("/acls/silver").expect(400)["code"], 1);
}
