//! The versions of records, conflicts, quarantine, and what is in the way of whom.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Cloud, join, ready, settings, status};
use crate::support::{Node, ask, free_ports, wait_for};

fn id(row: &Value) -> &str {
    row["id"].as_str().expect("an id")
}

fn history(node: &Node, kind: &str, id: &str) -> Vec<Value> {
    node.admin("GET", &format!("/cluster/history/{kind}/{id}"), Value::Null)["versions"].as_array().cloned().expect("versions")
}

fn own_id(node: &Node) -> Value {
    status(node)["nodes"].as_array().and_then(|all| all.iter().find(|one| one["self"] == true)).map_or(Value::Null, |own| own["id"].clone())
}

#[test]
fn the_history_of_a_record_tells_who_wrote_it_and_why_it_is_not_in_effect() {
    let cloud = Cloud::start(2);
    let [a, b] = &cloud.nodes[..] else { panic!("two nodes") };
    let consumer = a.admin("POST", "/consumers", json!({"username": "one"}));
    let key = a.admin("POST", "/consumers/one/key-auth", json!({"key": "the-key"}));
    b.admin("PATCH", "/consumers/one", json!({"custom_id": "x"}));
    cloud.meet();
    for node in &cloud.nodes {
        let versions = history(node, "consumers", id(&consumer));
        let [version] = &versions[..] else { panic!("one version: {versions:?}") };
        assert_eq!((&version["node"], &version["alive"], &version["effective"]), (&own_id(b), &json!(true), &json!(true)));
        assert_eq!((&version["current"], &version["reasons"], &version["body"]["custom_id"]), (&json!(true), &json!([]), &json!("x")));
        // What the credential's own endpoint shows.
        assert_eq!(history(node, "keyauth_credentials", id(&key))[0]["body"]["key"], "the-key");
        assert_eq!(node.admin("GET", "/consumers/one", Value::Null).get("_conflict"), None);
    }
    b.admin_answer("DELETE", "/consumers/one", &Value::Null);
    cloud.meet();
    for (kind, id) in [("consumers", id(&consumer)), ("keyauth_credentials", id(&key))] {
        let version = &history(a, kind, id)[0];
        assert_eq!(
            (&version["alive"], &version["effective"], &version["reasons"]),
            (&json!(false), &json!(false), &json!(["it is deleted"]))
        );
    }
    for path in ["/cluster/history/consumers/nobody", "/cluster/history/nothing/x", "/cluster/quarantine/consumers/x"] {
        let method = if path.contains("quarantine") { "DELETE" } else { "GET" };
        assert_eq!(a.admin_answer(method, path, &Value::Null).status, 404);
    }
}

/// Runs what each of two nodes does while the other is not there; both nodes, together again.
fn apart(cloud: &mut Cloud, first: impl FnOnce(&Node), second: impl FnOnce(&Node)) {
    let mut two = cloud.nodes.remove(1);
    two.kill();
    first(&cloud.nodes[0]);
    cloud.nodes[0].kill();
    let two = two.restart();
    wait_for("it is ready by itself", || ready(&two));
    second(&two);
    let one = cloud.nodes.remove(0).restart();
    cloud.nodes = vec![one, two];
    cloud.meet();
}

#[test]
fn what_lost_is_shown_with_the_entity_until_somebody_sets_it_right() {
    let mut cloud = Cloud::start(2);
    let consumer = cloud.nodes[0].admin("POST", "/consumers", json!({"username": "edited"}));
    cloud.meet();
    let path = format!("/consumers/{}", id(&consumer));
    let write = |node: &Node, custom: &str| {
        node.admin("PATCH", &path, json!({"custom_id": custom}));
        let twin = node.admin("POST", "/consumers", json!({"username": "double"}));
        (twin, node.admin("POST", &format!("{path}/key-auth"), json!({"key": "doubled"})))
    };
    let (mut first, mut second) = (None, None);
    apart(&mut cloud, |node| first = Some(write(node, "of-one")), |node| second = Some(write(node, "of-two")));
    let (Some((_, winner_key)), Some((loser, loser_key))) = (&first, &second) else { panic!("both have written") };
    for node in &cloud.nodes {
        // The name: in effect without it, and it says so, where the one that has it does not.
        let shown = node.admin("GET", &format!("/consumers/{}", id(loser)), Value::Null);
        assert_eq!(shown["username"], Value::Null);
        let reason = shown["_conflict"]["reasons"][0].as_str().expect("a reason");
        assert!(reason.starts_with("in effect without its username"), "{reason}");
        assert_eq!(shown["_conflict"]["history"], format!("/cluster/history/consumers/{}", id(loser)));
        assert_eq!(node.admin("GET", "/consumers/double", Value::Null).get("_conflict"), None);
        let list = node.admin("GET", "/consumers", Value::Null);
        assert!(!list.to_string().contains("_conflict"), "{list}");
        // The key: not in effect.
        let version = &history(node, "keyauth_credentials", id(loser_key))[0];
        let reason = format!("keyauth_credentials/{} has the older claim to its key", id(winner_key));
        assert_eq!((&version["effective"], &version["reasons"]), (&json!(false), &json!([reason])));
        assert!(history(node, "keyauth_credentials", id(winner_key))[0]["effective"] == true);
    }
    // The edit: whoever had it remembers it.
    let saw = |node: &Node| node.admin("GET", &path, Value::Null).get("_conflict").is_some();
    let seen: Vec<usize> = (0..2).filter(|number| saw(&cloud.nodes[*number])).collect();
    let [seen] = seen[..] else { panic!("the node whose edit lost") };
    // And it does so still when it was started anew.
    let before = cloud.nodes[seen].admin("GET", "/cluster/conflicts", Value::Null);
    let mut again = cloud.nodes.remove(seen);
    again.signal(Signal::SIGTERM);
    again.ended();
    cloud.nodes.insert(seen, again.restart());
    cloud.meet();
    let seen = &cloud.nodes[seen];
    assert_eq!(seen.admin("GET", "/cluster/conflicts", Value::Null), before);
    let versions = history(seen, "consumers", id(&consumer));
    assert_eq!((&versions[0]["body"]["custom_id"], &versions[1]["body"]["custom_id"]), (&json!("of-two"), &json!("of-one")));
    assert_eq!((&versions[1]["effective"], &versions[1]["settled"]), (&json!(false), &json!(false)));
    let conflicts = seen.admin("GET", "/cluster/conflicts", Value::Null);
    let mut listed: Vec<&str> = conflicts["data"].as_array().expect("a list").iter().map(id).collect();
    let mut expected = vec![id(&consumer), id(loser), id(loser_key)];
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected, "{conflicts}");
    // What was read is sent back with a change.
    for row in [&consumer, loser] {
        let path = format!("/consumers/{}", id(row));
        let mut shown = seen.admin("GET", &path, Value::Null);
        shown["username"] = format!("set right {}", id(row)).into();
        let answer = seen.admin("PUT", &path, shown);
        assert_eq!(answer.get("_conflict"), None);
        assert_eq!(seen.admin("GET", &path, Value::Null).get("_conflict"), None);
    }
    assert_eq!(history(seen, "consumers", id(&consumer))[1]["settled"], true);
    let gone = seen.admin_answer("DELETE", &format!("{path}/key-auth/{}", id(winner_key)), &Value::Null);
    assert_eq!(gone.status, 204, "{}", gone.text());
    cloud.meet();
    for node in &cloud.nodes {
        assert_eq!(node.admin("GET", "/cluster/conflicts", Value::Null)["data"], json!([]));
        assert!(history(node, "keyauth_credentials", id(loser_key))[0]["effective"] == true, "the key is its own now");
    }
}

#[test]
fn a_record_that_ends_the_node_twice_is_listed_and_released() {
    let mut cloud = Cloud::start(2);
    let mut node = cloud.nodes.remove(1);
    let consumer = node.admin("POST", "/consumers", json!({"username": "poison"}));
    let path = format!("/cluster/quarantine/consumers/{}", id(&consumer));
    assert_eq!(node.admin("GET", "/cluster/quarantine", Value::Null)["data"], json!([]));
    // For the node, an end within seconds is one that the record has brought about.
    node.kill();
    let mut node = node.restart();
    node.kill();
    let node = node.restart();
    let listed = node.admin("GET", "/cluster/quarantine", Value::Null);
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["body"]["username"]), (&consumer["id"], &json!("poison")), "{listed}");
    assert_eq!(node.admin_answer("GET", "/consumers/poison", &Value::Null).status, 404);
    assert_eq!(cloud.nodes[0].admin("GET", "/consumers/poison", Value::Null)["id"], consumer["id"]);
    let version = &history(&node, "consumers", id(&consumer))[0];
    assert_eq!((&version["effective"], &version["reasons"][0]), (&json!(false), &json!("it ended this node twice, which leaves it out")));
    // What needs it cannot be used either, and comes with it.
    let key = cloud.nodes[0].admin("POST", "/consumers/poison/key-auth", json!({"key": "below"}));
    let credential = |node: &Node| node.admin_answer("GET", &format!("/key-auths/{}", id(&key)), &Value::Null).status;
    wait_for("it has come", || status(&node)["bad"][0]["id"] == key["id"]);
    assert_eq!(credential(&node), 404);
    assert_eq!(node.admin_answer("DELETE", &path, &Value::Null).status, 204);
    wait_for("it is in effect", || node.admin_answer("GET", "/consumers/poison", &Value::Null).status == 200 && credential(&node) == 200);
    assert_eq!(node.admin_answer("DELETE", &path, &Value::Null).status, 404);
    assert_eq!((&status(&node)["bad"], &node.admin("GET", "/cluster/quarantine", Value::Null)["data"]), (&json!([]), &json!([])));
}

#[test]
fn a_value_is_free_when_the_time_of_its_row_is_over() {
    let cloud = Cloud::start(2);
    let [a, b] = &cloud.nodes[..] else { panic!("two nodes") };
    a.admin("POST", "/consumers", json!({"username": "one"}));
    let short = a.admin("POST", "/consumers/one/key-auth", json!({"key": "the-key", "ttl": 1}));
    cloud.meet();
    wait_for("its time is over", || b.admin_answer("GET", &format!("/key-auths/{}", id(&short)), &Value::Null).status == 404);
    let again = b.admin("POST", "/consumers/one/key-auth", json!({"key": "the-key"}));
    assert_ne!(short["id"], again["id"]);
    cloud.meet();
    for node in &cloud.nodes {
        assert_eq!(node.admin("GET", "/key-auths/the-key", Value::Null)["id"], again["id"]);
        assert_eq!(node.admin("GET", "/cluster/conflicts", Value::Null)["data"], json!([]));
        assert_eq!(history(node, "keyauth_credentials", id(&short))[0]["alive"], false);
    }
}

#[test]
fn a_row_that_the_cluster_does_not_take_is_not_in_effect_at_the_node_that_had_it() {
    let mut cloud = Cloud::start(1);
    cloud.nodes[0].admin("POST", "/consumers", json!({"username": "twin"}));
    let alone = Node::start(&[]);
    let own = alone.admin("POST", "/consumers", json!({"username": "twin"}));
    let other = alone.admin("POST", "/consumers", json!({"username": "other"}));
    let folder = cloud.directory.path().join("late");
    let seed = cloud.listens[0].to_string();
    join(&cloud.directory.path().join("0"), &seed, &folder);
    let [listen] = free_ports();
    let late = alone.restart_with(&settings(&folder, listen, &seed, "late"));
    wait_for("it has brought what it had", || late.log().contains("keeps its configuration with the cluster"));
    cloud.nodes.push(late);
    cloud.meet();
    let twin = cloud.nodes[0].admin("GET", "/consumers/twin", Value::Null);
    for node in &cloud.nodes {
        wait_for("the row that is not taken is gone", || {
            node.admin_answer("GET", &format!("/consumers/{}", id(&own)), &Value::Null).status == 404
        });
        assert_eq!(node.admin("GET", "/consumers/twin", Value::Null)["id"], twin["id"]);
        assert_eq!(node.admin("GET", "/consumers/other", Value::Null)["id"], other["id"]);
    }
    let log = cloud.nodes[1].log();
    assert!(log.contains("cannot be brought into the cluster"), "{log}");
    let answer = ask(cloud.nodes[1].admin, "POST", "/consumers", "Content-Type: application/json\r\n", b"{\"username\": \"new\"}");
    assert_eq!(answer.expect("an answer").status, 201);
}
