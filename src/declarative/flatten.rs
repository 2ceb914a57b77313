//! `flatten_errors=1`: the entities of a document that are wrong, as a flat list.

use schema::violations::ENTITY;
use schema::{EntitySchema, Object, Value};
use serde_json::json;

/// An entity and what is wrong with it.
#[derive(Debug)]
pub struct Faulty {
    pub entity: &'static EntitySchema,
    /// As it was written, without what is nested in it; with its id when it is known, and that of its parent.
    pub input: Object,
    /// A text about the whole entity, or violations by field.
    pub what: Value,
}

/// The list of `flattened_errors`.
pub fn flatten(faulty: &[Faulty]) -> Vec<Value> {
    faulty.iter().map(describe).collect()
}

fn describe(faulty: &Faulty) -> Value {
    let mut errors = Vec::new();
    collect("", &faulty.what, &mut errors);
    let kind = faulty.entity.name;
    let mut out = json!({
        "entity_type": kind.strip_suffix('s').unwrap_or(kind),
        "entity": faulty.input,
        "errors": errors,
    });
    for (field, shown) in [("id", "entity_id"), ("name", "entity_name")] {
        if let Some(Value::String(text)) = faulty.input.get(field) {
            out[shown] = text.as_str().into();
        }
    }
    if let Some(tags @ Value::Array(_)) = faulty.input.get("tags") {
        out["entity_tags"] = tags.clone();
    }
    out
}

fn collect(path: &str, what: &Value, errors: &mut Vec<Value>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match what {
        Value::String(text) if path.is_empty() => errors.push(json!({ "type": "entity", "message": text })),
        Value::String(text) => errors.push(json!({ "type": "field", "field": path, "message": text })),
        Value::Array(items) => {
            let wrong = items.iter().enumerate().filter(|(_, what)| !what.is_null());
            wrong.for_each(|(at, what)| collect(&join(&(at + 1).to_string()), what, errors));
        }
        Value::Object(table) => {
            for (name, what) in table {
                match what {
                    Value::Array(texts) if name == ENTITY => {
                        errors.extend(texts.iter().map(|text| json!({ "type": "entity", "message": text })));
                    }
                    what => collect(&join(name), what, errors),
                }
            }
        }
        _ => {}
    }
}
