//! Every endpoint is exercised: the generated ones by a walk over all of them, the others by a test that names them.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};
use troop::admin::entities;
use troop::admin::table::Table;

use super::client::send;
use super::node::TestNode;

/// The tests of this folder, as they are written.
const TESTS: &[&str] = &[
    include_str!("bodies.rs"),
    include_str!("collections.rs"),
    include_str!("consumer_groups.rs"),
    include_str!("dbless.rs"),
    include_str!("elements.rs"),
    include_str!("node_endpoints.rs"),
    include_str!("plugin_endpoints.rs"),
    include_str!("transport.rs"),
];

fn listed(node: &TestNode) -> Vec<String> {
    let list = node.get("/endpoints").expect(200);
    list["data"].as_array().expect("a list").iter().map(|p| p.as_str().expect("text").to_owned()).collect()
}

/// Each method of each endpoint answers in its own right, to rows that are not there and to an empty body.
#[test]
fn every_method_of_every_endpoint_answers() {
    let node = TestNode::start();
    let variable = Regex::new(r"\{\w+\}").expect("a regex");
    for pattern in listed(&node) {
        for filling in ["none", "4e13f54a-bbf1-47a8-8777-255fed7116f2"] {
            let path = variable.replace_all(&pattern, filling);
            let options = send(node.admin, "OPTIONS", &path, &[], b"");
            assert_eq!(options.status, 204, "{path}");
            let allowed = options.header("allow").expect("a list of methods").to_owned();
            for method in allowed.split(", ").filter(|m| !["HEAD", "OPTIONS"].contains(m)) {
                let body = if matches!(method, "GET" | "DELETE") { Value::Null } else { json!({}) };
                let answer = node.send(method, &path, body);
                assert!(![405, 500].contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
                if answer.header("content-type") == Some("application/json; charset=utf-8") {
                    assert!(answer.json().is_object(), "{method} {path}");
                }
            }
        }
    }
}

#[test]
fn endpoints_that_are_not_generated_have_tests_of_their_own() {
    let mut generated = Table::default();
    entities::endpoints(&mut generated);
    let generated: BTreeSet<String> = generated.endpoints().iter().map(|e| e.pattern.clone()).collect();
    let variable = Regex::new(r"\\\{\w+\\\}").expect("a regex");
    let mut untested = Vec::new();
    for pattern in listed(&TestNode::start()).into_iter().filter(|p| !generated.contains(p)) {
        let literal = variable.replace_all(&regex::escape(&pattern), "[^/\"?]+").into_owned();
        let named = Regex::new(&format!("\"{literal}[\"?]")).expect("a regex");
        if !TESTS.iter().any(|test| named.is_match(test)) {
            untested.push(pattern);
        }
    }
    assert!(untested.is_empty(), "no test asks {untested:?}");
}
