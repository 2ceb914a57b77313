//! Requests with the answers that Kong 3.10 gave to them.

use std::sync::Arc;

use serde_json::{Value, json};
use troop::catalog::Catalog;
use troop::model;

use super::node::TestNode;

/// The parent that the examples name.
const PARENT: &str = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";

/// Examples whose words may differ, and why. Status and code must hold all the same.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("route invalid regex", "the text is that of Kong's regex engine"),
    ("key missing kid", "the order of the fields in the text is not stable in Kong"),
    ("key both", "the order of the fields in the text is not stable in Kong"),
];

/// Examples that do not apply, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("plugin proxy-cache dict", "Kong's shared dictionaries do not exist here; any name is accepted"),
    ("target no upstream", "there is no path to post it to"),
];

fn examples(kind: &str) -> Vec<Value> {
    let text = include_str!("../golden/validation-examples.json");
    let all: Value = serde_json::from_str(text).expect("the golden file is JSON");
    all[kind].as_array().expect("a list").clone()
}

#[test]
fn bodies_get_the_answers_that_kong_gives() {
    let node = TestNode::start();
    let mut wrong = Vec::new();
    for example in examples("admin_api") {
        let text = |name: &str| example[name].as_str().unwrap_or_default();
        let Some(entity) = model::entity(text("entity")) else { continue };
        let plugin = example["request"]["name"].as_str().filter(|_| entity.name == "plugins").unwrap_or("nope");
        let built = plugin == "nope" || troop::plugins::plugin(plugin).is_some();
        if !built || NOT_HERE.iter().any(|(case, _)| *case == text("case")) {
            continue;
        }
        node.catalog.store(Arc::new(Catalog::default()));
        node.send("PUT", &format!("/consumers/{PARENT}"), json!({"username": "parent"})).expect(200);
        node.send("PUT", &format!("/upstreams/{PARENT}"), json!({"name": "parent"})).expect(200);
        let request = example["request"].clone();
        let path = match entity.name {
            "targets" => format!("/upstreams/{PARENT}/targets"),
            _ => format!("/{}", entity.path()),
        };
        let answer = node.post(&path, request);
        let got = answer.json();
        let words = !OTHER_WORDS.iter().any(|(case, _)| *case == text("case"));
        let same = answer.status == example["status"]
            && if words { holds(&example["response"], &got) } else { example["response"]["code"] == got["code"] };
        if !same {
            wrong.push(format!("{}\n  want {} {}\n   got {} {got}", text("case"), example["status"], example["response"], answer.status));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn documents_get_the_answers_that_kong_gives() {
    let mut wrong = Vec::new();
    for example in examples("config") {
        let case = example["case"].as_str().unwrap_or_default();
        if case == "nested ok" && troop::plugins::plugin("cors").is_none() {
            continue;
        }
        let node = TestNode::dbless();
        let flat = if case.contains("flatten_errors") { "?flatten_errors=1" } else { "" };
        let answer = node.post(&format!("/config{flat}"), example["request"].clone());
        let (got, want) = (in_order(answer.json()), in_order(example["response_json"].clone()));
        if answer.status != example["status"] || !holds(&want, &got) {
            wrong.push(format!("{case}\n  want {} {}\n   got {} {got}", example["status"], example["response_json"], answer.status));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Flattened errors in a fixed order, and rows with random ids under one name.
fn in_order(mut answer: Value) -> Value {
    if let Some(errors) = answer.get_mut("flattened_errors").and_then(Value::as_array_mut) {
        errors.sort_by_key(Value::to_string);
    }
    if let Some(rows) = answer.get_mut("keyauth_credentials").and_then(Value::as_object_mut) {
        *rows = std::mem::take(rows).into_values().map(|row| ("a random id".to_owned(), row)).collect();
    }
    answer
}

/// Whether an answer has all that is wanted. `<auto>` and keys that Kong made up stand for anything.
fn holds(want: &Value, got: &Value) -> bool {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => want.iter().all(|(k, v)| got.get(k).is_some_and(|g| holds(v, g))),
        (Value::Array(want), Value::Array(got)) => want.len() == got.len() && want.iter().zip(got).all(|(w, g)| holds(w, g)),
        (Value::String(want), _) if want == "<auto>" || want == "<random>" || want.starts_with("0000000000") => !got.is_null(),
        (Value::Number(want), Value::Number(got)) => want.as_f64() == got.as_f64(),
        (want, got) => want == got,
    }
}
