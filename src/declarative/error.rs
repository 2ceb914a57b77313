//! Why a document is refused, in Kong's shapes.

use schema::{Object, Value, lua};
use serde_json::json;

use super::flatten::{Faulty, flatten};

/// Everything that is wrong with a document.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.message())]
pub struct DeclarativeError {
    /// What is wrong, in the shape of the document: lists with null where nothing is.
    pub fields: Object,
    /// What is wrong outside of entities, in the same shape.
    pub(super) elsewhere: Object,
    /// Violations that show an entity as a whole in `elsewhere`, but need no place in the message.
    pub(super) references: Object,
    pub(super) faulty: Vec<Faulty>,
}

impl DeclarativeError {
    /// The text is neither JSON nor YAML, or no table.
    pub fn unreadable(why: &str) -> Self {
        let fields = Object::from_iter([("error".to_owned(), format!("failed parsing declarative configuration: {why}").into())]);
        Self { elsewhere: fields.clone(), fields, references: Object::new(), faulty: Vec::new() }
    }

    pub fn message(&self) -> String {
        message(&self.fields)
    }

    /// The answer of `POST /config`: code 14.
    pub fn envelope(&self) -> Value {
        json!({
            "code": 14,
            "name": "invalid declarative configuration",
            "message": self.message(),
            "fields": self.fields,
        })
    }

    /// The answer of `POST /config?flatten_errors=1`: a list of the entities that are wrong. What is wrong outside of entities
    /// stays in `fields`. References to nothing have no place in Kong's answer; here `fields` tells of them.
    pub fn flattened(&self) -> Value {
        let mut fields = self.elsewhere.clone();
        fields.extend(self.references.clone());
        json!({
            "code": 14,
            "name": "invalid declarative configuration",
            "message": message(&self.elsewhere),
            "fields": fields,
            "flattened_errors": flatten(&self.faulty),
        })
    }

    /// A listing for people: `in 'services':` / `  - in entry 1 of 'services':` / `    in 'host': required field missing`.
    pub fn listing(&self) -> String {
        let mut lines = Vec::new();
        list(&Value::Object(self.fields.clone()), "", 0, &mut lines);
        lines.join("\n")
    }
}

fn message(fields: &Object) -> String {
    format!("declarative config is invalid: {}", lua::dump(&Value::Object(fields.clone()), false))
}

fn list(what: &Value, of: &str, depth: usize, lines: &mut Vec<String>) {
    let entries: Vec<(String, String, &Value)> = match what {
        Value::Object(table) => lua::sorted(table).into_iter().map(|(key, what)| (format!("in '{key}'"), key.clone(), what)).collect(),
        Value::Array(items) => {
            let wrong = items.iter().enumerate().filter(|(_, what)| !what.is_null());
            wrong.map(|(at, what)| (format!("- in entry {} of '{of}'", at + 1), (at + 1).to_string(), what)).collect()
        }
        _ => return,
    };
    let indent = "  ".repeat(depth);
    for (shown, key, what) in entries {
        match what {
            Value::String(text) => lines.push(format!("{indent}{shown}: {text}")),
            what => {
                lines.push(format!("{indent}{shown}:"));
                list(what, &key, depth + 1, lines);
            }
        }
    }
}
