//! Consumer groups, which Kong has in its paid editions alone.

use serde_json::{Value, json};

use super::node::TestNode;

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|row| row["username"].as_str().or(row["name"].as_str()).unwrap_or_default()).collect()
}

#[test]
fn consumers_enter_and_leave_groups() {
    let node = TestNode::start();
    let gold = node.post("/consumer_groups", json!({"name": "gold"})).expect(201);
    node.post("/consumer_groups", json!({"name": "silver"})).expect(201);
    for name in ["amy", "bob"] {
        node.post("/consumers", json!({"username": name})).expect(201);
    }
    let joined = node.post("/consumer_groups/gold/consumers", json!({"consumer": "amy"})).expect(201);
    assert_eq!((&joined["consumer_group"]["name"], names(&joined["consumers"])), (&json!("gold"), vec!["amy"]));
    let joined = node.post("/consumers/bob/consumer_groups", json!({"group": ["gold", "silver"]})).expect(201);
    assert_eq!(joined["consumer"]["username"], "bob");
    assert_eq!(node.post("/consumers/bob/consumer_groups", json!({"group": "gold"})).status, 409);
    assert_eq!(node.post("/consumers/bob/consumer_groups", json!({"group": "none"})).status, 404);
    assert_eq!(node.post("/consumers/bob/consumer_groups", json!({})).status, 400);

    let group = node.get("/consumer_groups/gold").expect(200);
    assert_eq!(group["consumer_group"], gold);
    assert_eq!(group["consumers"].as_array().map(Vec::len), Some(2));
    let list = node.get("/consumer_groups/gold/consumers").expect(200);
    assert_eq!(list["data"], list["consumers"]);
    assert_eq!(list["data"].as_array().map(Vec::len), Some(2));
    let page = node.get("/consumer_groups/gold/consumers?size=1").expect(200);
    assert_eq!(node.get(page["next"].as_str().expect("a link")).expect(200)["data"].as_array().map(Vec::len), Some(1));
    let mut of_bob = node.get("/consumers/bob/consumer_groups").expect(200)["consumer_groups"].clone();
    of_bob.as_array_mut().expect("a list").sort_by_key(|g| g["name"].to_string());
    assert_eq!(names(&of_bob), ["gold", "silver"]);

    assert_eq!(node.get("/consumer_groups/gold/consumers/bob").expect(200)["consumer"]["username"], "bob");
    assert_eq!(node.delete("/consumer_groups/gold/consumers/bob").status, 204);
    assert_eq!(node.get("/consumers/bob/consumer_groups/gold").status, 404);
    assert_eq!(node.delete("/consumers/bob/consumer_groups/gold").status, 404);
    assert_eq!(node.delete("/consumers/bob/consumer_groups").status, 204);
    assert_eq!(node.delete("/consumer_groups/gold/consumers").status, 204);
    assert_eq!(node.get("/consumer_groups/gold").expect(200)["consumers"], json!([]));
}

#[test]
fn plugins_of_a_group() {
    let node = TestNode::start();
    let gold = node.send("PUT", "/consumer_groups/gold", json!({"tags": ["a"]})).expect(200);
    let plugin = json!({"name": "rate-limiting", "config": {"minute": 5}});
    let made = node.post("/consumer_groups/gold/plugins", plugin.clone()).expect(201);
    assert_eq!(made["consumer_group"], json!({"id": gold["id"]}));
    assert_eq!(node.post("/consumer_groups/gold/plugins", plugin).status, 409);
    assert_eq!(node.get("/consumer_groups/gold").expect(200)["plugins"].as_array().map(Vec::len), Some(1));
    let path = format!("/plugins/{}/consumer_group", made["id"].as_str().unwrap_or_default());
    assert_eq!(node.get(&path).expect(200)["name"], "gold");
    assert_eq!(node.delete("/consumer_groups/gold").status, 204);
    assert_eq!(node.get("/plugins").expect(200)["data"], json!([]));
}
