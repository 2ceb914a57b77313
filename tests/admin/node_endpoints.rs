//! Endpoints that are about the node, and the status listener.

use serde_json::{Value, json};

use super::client::send;
use super::node::TestNode;

#[test]
fn the_root_names_versions_and_hides_secrets() {
    let node = TestNode::start();
    let root = node.get("/").expect(200);
    assert_eq!(root["version"], "3.10.0");
    assert_eq!(root["troop_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(root["tagline"], "Welcome to kong");
    assert_eq!(root["edition"], "community");
    assert_eq!(root["hostname"], "node.test");
    assert_eq!(root["node_id"], "00000000-0000-0000-0000-000000000001");
    assert_eq!(root["configuration"]["pg_password"], "******");
    assert!(root["plugins"]["available_on_server"].is_object() && root["plugins"]["enabled_in_cluster"].is_array());
}

#[test]
fn status_and_readiness() {
    let node = TestNode::start();
    let on_status =
        |method: &str, path: &str, body: &str| send(node.status, method, path, &[("content-type", "application/json")], body.as_bytes());
    for status in [node.get("/status").expect(200), on_status("GET", "/status", "").expect(200)] {
        assert_eq!(status["server"]["connections_accepted"], 7);
        assert_eq!(status["server"]["total_requests"], 9);
        assert_eq!(status["database"], json!({"reachable": true}));
        assert!(status["memory"]["workers_lua_vms"][0]["http_allocated_gc"].as_str().is_some_and(|m| m.ends_with(" MiB")));
    }
    assert_eq!(node.get("/status?unit=x").status, 400);
    assert_eq!(node.get("/status/ready").status, 404, "the status listener has it alone");
    assert_eq!(on_status("GET", "/status/ready", "").expect(200), json!({"message": "ready"}));
    assert_eq!(on_status("POST", "/status/ready", r#"{"status":"sleeping"}"#).status, 400);
    assert_eq!(on_status("POST", "/status/ready", r#"{"status":"draining"}"#).status, 204);
    assert_eq!(on_status("GET", "/status/ready", "").expect(503), json!({"message": "draining"}));
    assert_eq!(on_status("GET", "/status/dns", "").status, 501);
    assert_eq!(on_status("GET", "/metrics", "").header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(on_status("GET", "/services", "").status, 404);
    assert_eq!(on_status("GET", "/upstreams/u/health", "").status, 404);
}

#[test]
fn status_without_a_database() {
    let node = TestNode::dbless();
    let status = node.get("/status").expect(200);
    assert_eq!(status["configuration_hash"], "0".repeat(32));
    assert_eq!(status.get("database"), None);
    assert_eq!(send(node.status, "GET", "/upstreams/u/health", &[], b"").expect(404), json!({"message": "Not found"}));
}

#[test]
fn endpoints_are_listed_in_order() {
    let node = TestNode::start();
    let listed = node.get("/endpoints").expect(200);
    let paths: Vec<&str> = listed["data"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(paths.first(), Some(&"/"));
    for path in ["/endpoints", "/services/{services}/routes/{routes}", "/upstreams/{upstreams}/targets/{targets}/healthy", "/tags/{tags}"] {
        assert!(paths.contains(&path), "{path}");
    }
    let mut sorted = paths.clone();
    sorted.sort_by(|a, b| a.split('/').cmp(b.split('/')));
    assert_eq!(paths[1..], sorted[1..]);
}

#[test]
fn log_levels() {
    let node = TestNode::start();
    assert_eq!(node.get("/debug/node/log-level").expect(200), json!({"message": "log level: notice"}));
    let put = |path: &str, body: Value| node.send("PUT", path, body);
    assert_eq!(put("/debug/node/log-level/notice", Value::Null).expect(200), json!({"message": "log level is already notice"}));
    assert_eq!(put("/debug/node/log-level/debug", json!({"timeout": 5})).expect(200), json!({"message": "log level changed"}));
    assert_eq!(node.get("/debug/node/log-level").expect(200), json!({"message": "log level: debug"}));
    assert_eq!(put("/debug/node/log-level/loud", Value::Null).expect(400), json!({"message": "unknown log level: loud"}));
    let negative = put("/debug/cluster/log-level/info", json!({"timeout": -1}));
    assert_eq!(negative.expect(400), json!({"message": "timeout must be greater than or equal to 0"}));
    assert_eq!(put("/debug/cluster/control-planes-nodes/log-level/info", Value::Null).status, 200);
    let dbless = TestNode::dbless();
    let refused = dbless.send("PUT", "/debug/node/log-level/debug", Value::Null);
    assert_eq!(refused.expect(405), json!({"message": "cannot change log level when not using a database"}));
}

#[test]
fn what_other_modes_answer() {
    let node = TestNode::start();
    let control_plane = "this endpoint is only available when Kong is configured to run as Control Plane for the cluster";
    for path in ["/clustering/data-planes", "/clustering/status"] {
        assert_eq!(node.get(path).expect(400), json!({"message": control_plane}));
    }
    let wasm = json!({"message": "this endpoint is only available when wasm is enabled"});
    for path in [
        "/filter-chains",
        "/filter-chains/x",
        "/services/x/filter-chains",
        "/services/x/filter-chains/y",
        "/routes/x/filter-chains",
        "/routes/x/filter-chains/y",
        "/routes/x/filters/all",
        "/routes/x/filters/enabled",
        "/routes/x/filters/disabled",
    ] {
        assert_eq!(node.get(path).expect(400), wasm);
    }
    assert_eq!(node.get("/schemas/filters/x").expect(404), json!({"message": "Filter 'x' not found"}));
    let dbless = json!({"message": "this endpoint is only available when Kong is configured to not use a database"});
    assert_eq!(node.get("/config").expect(400), dbless);
    assert_eq!(node.post("/config", json!({"_format_version": "3.0"})).expect(400), dbless);
    assert_eq!(node.send("PUT", "/config", json!({})).status, 405);
}

#[test]
fn small_things() {
    let node = TestNode::start();
    assert!(node.get("/plugins/enabled").expect(200)["enabled_plugins"].is_array());
    assert!(node.get("/timers").expect(200)["worker"]["count"].is_number());
    assert_eq!(node.get("/robots.txt").text(), "User-agent: *\nDisallow: /");
    assert_eq!(node.get("/metrics").text(), "# TYPE kong_node_info gauge\n");
    assert_eq!(node.get("/status/dns").expect(501), json!({"message": "not implemented with the legacy DNS client"}));
    let service = node.service();
    assert_eq!(node.get("/cache/services:svc:::::").expect(200), service);
    assert_eq!(node.get("/cache/services:none:::::").expect(404), json!({"message": "Not found"}));
    assert_eq!(node.delete("/cache/services:svc:::::").status, 204);
    assert_eq!(node.delete("/cache").status, 204);
}

#[test]
fn validation_without_writing() {
    let node = TestNode::start();
    let good = json!({"message": "schema validation successful"});
    assert_eq!(node.post("/schemas/services/validate", json!({"name": "s", "host": "h"})).expect(200), good);
    let refused = node.post("/schemas/services/validate", json!({"name": "s"})).expect(400);
    assert_eq!((&refused["code"], &refused["fields"]), (&json!(2), &json!({"host": "required field missing"})));
    assert_eq!(node.post("/schemas/nope/validate", json!({})).expect(404), json!({"message": "No entity named 'nope'"}));
    let plugin = node.post("/schemas/plugins/validate", json!({"name": "rate-limiting", "config": {"minute": 1}}));
    assert_eq!(plugin.expect(200), good);
    assert_eq!(node.post("/schemas/plugins/validate", json!({})).expect(400)["fields"], json!({"name": "required field missing"}));
    assert_eq!(node.post("/schemas/vaults/validate", json!({})).status, 400);
    assert_eq!(node.get("/services").expect(200)["data"], json!([]));
}

#[test]
fn schemas_are_shown() {
    let node = TestNode::start();
    let services = node.get("/schemas/services").expect(200);
    let names = |schema: &Value| {
        let fields = schema["fields"].as_array().expect("a list").iter();
        fields.filter_map(|f| f.as_object()?.keys().next().cloned()).collect::<Vec<_>>()
    };
    assert!(names(&services).contains(&"connect_timeout".to_owned()));
    assert!(services["entity_checks"].is_array());
    assert_eq!(node.get("/schemas/nope").expect(404), json!({"message": "No entity named 'nope'"}));
    for path in ["/schemas/plugins/rate-limiting", "/plugins/schema/rate-limiting"] {
        assert!(names(&node.get(path).expect(200)).contains(&"config".to_owned()));
    }
    assert_eq!(node.get("/schemas/plugins/nope").expect(404), json!({"message": "No plugin named 'nope'"}));
    assert!(names(&node.get("/schemas/vaults/env").expect(200)).contains(&"config".to_owned()));
    assert_eq!(node.get("/schemas/vaults/nope").expect(404), json!({"message": "No vault named 'nope'"}));
}
