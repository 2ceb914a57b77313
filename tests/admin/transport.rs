//! Header fields, methods, limits, and what unknown paths answer.

use serde_json::json;
use troop::admin::context::Options;

use super::client::send;
use super::node::TestNode;

#[test]
fn every_answer_names_the_server_and_allows_other_origins() {
    let node = TestNode::start();
    for (path, status) in [("/", 200), ("/nope", 404), ("/services/x", 404)] {
        let answer = node.get(path);
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(answer.header("server"), Some("kong/3.10.0"));
        assert_eq!(answer.header("x-troop-version"), Some(env!("CARGO_PKG_VERSION")));
        assert!(answer.header("x-kong-admin-latency").is_some_and(|v| v.parse::<u64>().is_ok()));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    }
    let answer = send(node.admin, "GET", "/", &[("origin", "https://gui.test")], b"");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://gui.test"));
}

#[test]
fn only_the_origins_of_the_gui_are_let_in_when_there_is_one() {
    let node = TestNode::with(Options { gui_origins: vec!["https://gui.test".to_owned()], ..Options::default() });
    for (origin, allowed) in [("https://gui.test", "https://gui.test"), ("https://evil.test", "https://gui.test")] {
        let answer = send(node.admin, "GET", "/", &[("origin", origin)], b"");
        assert_eq!(answer.header("access-control-allow-origin"), Some(allowed));
    }
}

#[test]
fn server_and_latency_can_be_turned_off() {
    let node = TestNode::with(Options { server_header: false, latency_header: false, ..Options::default() });
    let answer = node.get("/");
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("x-kong-admin-latency"), None);
}

#[test]
fn options_lists_the_methods() {
    let node = TestNode::start();
    for (path, methods) in [
        ("/services", "GET, HEAD, OPTIONS, POST"),
        ("/services/x", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/plugins/x/service", "GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/schemas/services/validate", "OPTIONS, POST"),
    ] {
        let answer = send(node.admin, "OPTIONS", path, &[], b"");
        assert_eq!((answer.status, answer.text()), (204, String::new()));
        assert_eq!(answer.header("allow"), Some(methods));
        assert_eq!(answer.header("access-control-allow-methods"), Some(methods));
        assert_eq!(answer.header("access-control-allow-headers"), Some("Content-Type"));
    }
    let asked = [("access-control-request-headers", "X-A, X-B")];
    let answer = send(node.admin, "OPTIONS", "/services", &asked, b"");
    assert_eq!(answer.header("access-control-allow-headers"), Some("X-A, X-B"));
    assert_eq!(send(node.admin, "OPTIONS", "/nope", &[], b"").status, 404);
}

#[test]
fn head_answers_where_get_does() {
    let node = TestNode::start();
    let answer = send(node.admin, "HEAD", "/services", &[], b"");
    assert_eq!((answer.status, answer.text()), (200, String::new()));
    assert_eq!(send(node.admin, "HEAD", "/services/none", &[], b"").status, 404);
}

#[test]
fn unknown_paths_and_methods() {
    let node = TestNode::start();
    assert_eq!(node.get("/nope").expect(404), json!({"message": "Not found"}));
    assert_eq!(node.post("/no-such", json!({})).expect(404), json!({"message": "Not found"}));
    assert_eq!(node.send("PUT", "/services", json!({"name": "x"})).expect(405), json!({"message": "Method not allowed"}));
    assert_eq!(node.send("PATCH", "/", json!({})).expect(405), json!({"message": "Method not allowed"}));
    assert_eq!(node.delete("/plugins/x/service").expect(405), json!({"message": "Method not allowed"}));
    for turned_off in ["/targets", "/targets/x", "/targets/x/upstream", "/snis/x/certificate"] {
        assert_eq!(node.get(turned_off).status, 404, "{turned_off}");
    }
}

#[test]
fn a_slash_at_the_end_is_tolerated() {
    let node = TestNode::start();
    node.service();
    assert_eq!(node.get("/services/").status, 200);
    assert_eq!(node.get("/services/svc/").status, 200);
    assert_eq!(node.get("/services//svc").status, 404);
}

#[test]
fn large_bodies_are_refused() {
    let node = TestNode::with(Options { max_body: 1000, ..Options::default() });
    let json = [("content-type", "application/json")];
    let answer = send(node.admin, "POST", "/services", &json, &[b' '; 1001]);
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=UTF-8"));
    let chunked = [("content-type", "application/json"), ("transfer-encoding", "chunked"), ("content-length", "")];
    let body = format!("3e9\r\n{}\r\n0\r\n\r\n", " ".repeat(1001));
    assert_eq!(send(node.admin, "POST", "/services", &chunked[..2], body.as_bytes()).status, 400, "two lengths");
}
