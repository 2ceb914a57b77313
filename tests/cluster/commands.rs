//! Commands that are meant for all nodes: purges of kept answers, and health that is set by hand.

use serde_json::{Value, json};

use super::wire::Wired;
use super::{Cloud, status};
use crate::support::{Answer, Node, Upstream, ask, get, wait_for};

/// A call of the Admin API that waits for all nodes; panics unless the answer has this status.
fn everywhere(node: &Node, method: &str, path: &str, status: u16) -> Answer {
    let answer = ask(node.admin, method, path, "X-Cluster-Wait: all\r\n", b"").expect("an answer");
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    answer
}

/// A route to an upstream whose answers are kept.
fn keeping(node: &Node, upstream: &Upstream) -> String {
    node.admin("POST", "/services", json!({"name": "s", "url": upstream.url()}));
    node.admin("POST", "/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    let plugin = node.admin("POST", "/services/s/plugins", json!({"name": "proxy-cache", "config": {"strategy": "memory"}}));
    node.admin("POST", "/cluster/barrier", json!({}));
    plugin["id"].as_str().expect("an id").to_owned()
}

/// Asks until the answer is kept; its key.
fn fill(node: &Node, path: &str) -> String {
    let mut key = String::new();
    wait_for("the answer is kept", || {
        let answer = get(node.proxy, path).expect("the proxy answers");
        key = answer.header("x-cache-key").unwrap_or_default().to_owned();
        answer.header("x-cache-status") == Some("Hit")
    });
    key
}

fn kept(node: &Node, key: &str) -> bool {
    node.admin_answer("GET", &format!("/proxy-cache/{key}"), &Value::Null).status == 200
}

#[test]
fn what_is_purged_at_one_node_is_purged_at_all() {
    let cloud = Cloud::start(3);
    let upstream = Upstream::telling("Content-Type: text/plain\r\n", "from upstream");
    let plugin = keeping(&cloud.nodes[0], &upstream);
    let fill_all = |path: &str| cloud.nodes.iter().fold(String::new(), |_, node| fill(node, path));
    let (one, two) = (fill_all("/one"), fill_all("/two"));
    let answer = everywhere(&cloud.nodes[1], "DELETE", &format!("/proxy-cache/{one}"), 204);
    assert_eq!(answer.header("x-cluster-applied"), Some("3/3"));
    for node in &cloud.nodes {
        assert!(!kept(node, &one) && kept(node, &two));
    }
    // A node that does not have the answer says so, and the others forget theirs.
    fill(&cloud.nodes[0], "/one");
    everywhere(&cloud.nodes[2], "DELETE", &format!("/proxy-cache/{one}"), 404);
    assert!(!kept(&cloud.nodes[0], &one));
    everywhere(&cloud.nodes[2], "DELETE", &format!("/proxy-cache/{plugin}/caches/{two}"), 204);
    assert!(!cloud.nodes.iter().any(|node| kept(node, &two)));
    everywhere(&cloud.nodes[2], "DELETE", "/proxy-cache/nonsense", 404);
    let (one, two) = (fill_all("/one"), fill_all("/two"));
    everywhere(&cloud.nodes[0], "DELETE", "/proxy-cache", 204);
    assert!(!cloud.nodes.iter().any(|node| kept(node, &one) || kept(node, &two)));
    // Many at once lose none.
    let keys: Vec<String> = (0..12).map(|n| fill_all(&format!("/many/{n}"))).collect();
    std::thread::scope(|scope| {
        for key in &keys {
            let node = &cloud.nodes[0];
            scope.spawn(move || everywhere(node, "DELETE", &format!("/proxy-cache/{key}"), 204));
        }
    });
    assert!(!cloud.nodes.iter().any(|node| keys.iter().any(|key| kept(node, key))));
    // They are nobody's configuration.
    assert_eq!(cloud.nodes[0].admin("GET", "/cluster/conflicts", Value::Null)["data"], json!([]));
    assert_eq!(status(&cloud.nodes[1])["bad"], json!([]));
}

#[test]
fn a_node_that_was_cut_off_obeys_when_it_is_back() {
    let pair = Wired::start(2);
    let [a, b] = &pair.cloud.nodes[..] else { panic!("two nodes") };
    let part = || {
        pair.cut(1);
        pair.until_missed(1);
    };
    let upstream = Upstream::telling("Content-Type: text/plain\r\n", "from upstream");
    keeping(a, &upstream);
    let target = balanced(a, &upstream);
    pair.cloud.meet();
    let [one, two] = ["/one", "/two"].map(|path| fill(b, path));
    part();
    a.admin_answer("DELETE", &format!("/proxy-cache/{one}"), &Value::Null);
    assert_eq!(a.admin_answer("PUT", &format!("{target}/unhealthy"), &Value::Null).status, 204);
    assert!(kept(b, &one) && healthy(b, &upstream.address.to_string()));
    pair.mend();
    wait_for("the purge is made up for", || !kept(b, &one));
    assert!(kept(b, &two), "and nothing else is purged");
    wait_for("the mark is made up for", || !healthy(b, &upstream.address.to_string()));
    part();
    a.admin_answer("DELETE", "/proxy-cache", &Value::Null);
    assert!(kept(b, &two));
    pair.mend();
    wait_for("the purge is made up for", || !kept(b, &two));
    // Not obeyed once more at the next purge.
    fill(b, "/two");
    everywhere(a, "DELETE", &format!("/proxy-cache/{one}"), 404);
    assert!(kept(b, &two));
}

#[test]
fn a_mark_that_is_set_while_another_node_deletes_the_target_goes_too() {
    let mut pair = Wired::start(2);
    let [a, b] = &pair.cloud.nodes[..] else { panic!("two nodes") };
    let upstream = Upstream::start("from upstream");
    let target = balanced(a, &upstream);
    pair.cut(1);
    pair.until_missed(1);
    assert_eq!(b.admin_answer("PUT", &format!("{target}/unhealthy"), &Value::Null).status, 204);
    assert_eq!(a.admin_answer("DELETE", &target, &Value::Null).status, 204);
    assert_eq!(history(b, &target)["alive"], true);
    pair.mend();
    // Nobody has had the time to look for such marks: those that are found at the start go too.
    pair.cloud.nodes = std::mem::take(&mut pair.cloud.nodes).into_iter().map(Node::restart).collect();
    pair.cloud.meet();
    for node in &pair.cloud.nodes {
        wait_for("the mark is deleted", || history(node, &target)["alive"] == false);
        assert_eq!(node.admin("GET", "/cluster/conflicts", Value::Null)["data"], json!([]));
    }
}

/// The version that counts of a target's marks.
fn history(node: &Node, target: &str) -> Value {
    let path = target.replace("/upstreams/u/targets", "/cluster/history/target_marks");
    let answer = node.admin_answer("GET", &path, &Value::Null);
    answer.json()["versions"][0].clone()
}

/// An upstream with passive checks and a target; the target's path.
fn balanced(node: &Node, upstream: &Upstream) -> String {
    let checks = json!({"passive": {"unhealthy": {"http_failures": 100}}});
    node.admin("POST", "/upstreams", json!({"name": "u", "healthchecks": checks}));
    let target = node.admin("POST", "/upstreams/u/targets", json!({"target": upstream.address.to_string()}));
    node.admin("POST", "/cluster/barrier", json!({}));
    format!("/upstreams/u/targets/{}", target["id"].as_str().expect("an id"))
}

fn healthy(node: &Node, target: &str) -> bool {
    let health = node.admin("GET", "/upstreams/u/health", Value::Null);
    let one = health["data"].as_array().and_then(|all| all.iter().find(|one| one["target"] == target).cloned());
    one.expect("the target")["health"] == "HEALTHY"
}

#[test]
fn health_that_is_set_by_hand_is_set_on_all_nodes_and_goes_with_the_target() {
    let mut cloud = Cloud::start(3);
    let upstream = Upstream::start("from upstream");
    let (name, target) = (upstream.address.to_string(), balanced(&cloud.nodes[0], &upstream));
    let answer = everywhere(&cloud.nodes[1], "PUT", &format!("{target}/unhealthy"), 204);
    assert_eq!(answer.header("x-cluster-applied"), Some("3/3"));
    assert!(!cloud.nodes.iter().any(|node| healthy(node, &name)));
    // Also after a restart: there are no probes that would know better.
    let back = cloud.nodes.remove(2).restart();
    cloud.nodes.push(back);
    cloud.meet();
    assert!(!healthy(&cloud.nodes[2], &name));
    everywhere(&cloud.nodes[2], "PUT", &format!("{target}/{name}/healthy"), 204);
    assert!(cloud.nodes.iter().all(|node| healthy(node, &name)));
    everywhere(&cloud.nodes[2], "PUT", &format!("{target}/10.0.0.9/unhealthy"), 404);
    everywhere(&cloud.nodes[0], "PUT", &format!("{target}/{}/unhealthy", upstream.address.ip()), 204);
    assert!(!cloud.nodes.iter().any(|node| healthy(node, &name)));
    assert_eq!(history(&cloud.nodes[1], &target)["effective"], true);
    // With the target, and with the upstream that both belong to.
    let other = cloud.nodes[0].admin("POST", "/upstreams/u/targets", json!({"target": "127.0.0.1:9"}));
    let other = format!("/upstreams/u/targets/{}", other["id"].as_str().expect("an id"));
    everywhere(&cloud.nodes[0], "PUT", &format!("{other}/unhealthy"), 204);
    everywhere(&cloud.nodes[0], "DELETE", &target, 204);
    assert!(cloud.nodes.iter().all(|node| history(node, &target)["alive"] == false && history(node, &other)["alive"] == true));
    everywhere(&cloud.nodes[0], "DELETE", "/upstreams/u", 204);
    for node in &cloud.nodes {
        assert_eq!(history(node, &other)["alive"], false);
        assert_eq!(node.admin("GET", "/cluster/conflicts", Value::Null)["data"], json!([]));
    }
}
