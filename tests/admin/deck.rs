//! What decK asks in a reset, two syncs, a diff, a validation and a dump, and what Kong 3.10 answered.

use std::collections::BTreeMap;

use serde_json::Value;

use super::node::TestNode;

/// Paths that Kong's open edition does not know and Troop does: decK then uses them.
const MORE_HERE: &[&str] = &["/consumer_groups"];

#[test]
fn deck_gets_the_answers_that_kong_gives() {
    let calls: Vec<Value> = serde_json::from_str(include_str!("../golden/deck-calls.json")).expect("the golden file is JSON");
    let node = TestNode::start();
    for (path, prefix) in [("/services", "/services?"), ("/routes", "/routes?")] {
        let at_first = calls.iter().find(|c| c["path"].as_str().is_some_and(|p| p.starts_with(prefix))).expect("a listing");
        for row in at_first["answer"]["data"].as_array().expect("rows") {
            node.send("PUT", &format!("{path}/{}", row["id"].as_str().unwrap_or_default()), row.clone()).expect(200);
        }
    }
    let mut wrong = Vec::new();
    for call in &calls {
        let text = |name: &str| call[name].as_str().unwrap_or_default();
        if MORE_HERE.iter().any(|path| text("path").starts_with(path)) || needs_what_is_not_built(call) {
            continue;
        }
        let mut want = call["answer"].clone();
        if let Some(rows) = want.get_mut("data").and_then(Value::as_array_mut).filter(|_| text("path").starts_with("/plugins?")) {
            rows.retain(|row| is_built(row["name"].as_str().unwrap_or_default()));
        }
        let answer = node.send(text("method"), text("path"), call["body"].clone());
        let got = if answer.body.is_empty() { Value::Null } else { answer.json() };
        if answer.status != call["status"] || !holds(&want, &got, "") {
            wrong.push(format!("{} {}\n  want {}\n   got {} {got}", text("method"), text("path"), want, answer.status));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), calls.len(), wrong.join("\n"));
}

fn is_built(plugin: &str) -> bool {
    troop::plugins::plugin(plugin).is_some()
}

/// Whether a call is about a plugin, or an entity of a plugin, that does not exist.
fn needs_what_is_not_built(call: &Value) -> bool {
    let path = call["path"].as_str().unwrap_or_default();
    let of_row = path.starts_with("/plugins/") || path == "/schemas/plugins/validate";
    let named = match path.strip_prefix("/schemas/plugins/") {
        Some(name) if name != "validate" => Some(name),
        _ => call["body"]["name"].as_str().filter(|_| of_row),
    };
    let oauth2 = path.starts_with("/oauth2") && troop::model::entity("oauth2_credentials").is_none();
    oauth2 || named.is_some_and(|name| !is_built(name))
}

/// Whether an answer has all that is wanted. Times differ; rows of a list may come in another order.
fn holds(want: &Value, got: &Value, name: &str) -> bool {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => want.iter().all(|(k, v)| got.get(k).is_some_and(|g| holds(v, g, k))),
        // Schemas have more here: plugins can be scoped to groups of consumers.
        (Value::Array(want), Value::Array(got)) if name == "fields" => want.iter().all(|w| got.iter().any(|g| holds(w, g, ""))),
        (Value::Array(want), Value::Array(got)) => {
            want.len() == got.len() && by_id(want).into_values().zip(by_id(got).into_values()).all(|(w, g)| holds(w, g, ""))
        }
        (Value::Number(_), Value::Number(_)) if matches!(name, "created_at" | "updated_at") => true,
        (Value::Number(want), Value::Number(got)) => want.as_f64() == got.as_f64(),
        (want, got) => want == got,
    }
}

/// Rows by their ids, fields of a schema by their names, other things by their places.
fn by_id(list: &[Value]) -> BTreeMap<String, &Value> {
    let key = |at: usize, row: &Value| match row {
        Value::Object(row) => {
            row.get("id").filter(|id| id.is_string()).map_or_else(|| row.keys().next().cloned(), |id| Some(id.to_string()))
        }
        _ => Some(format!("{at:05}")),
    };
    list.iter().enumerate().map(|(at, row)| (key(at, row).unwrap_or_default(), row)).collect()
}
