//! The tree of violations, in the shape of Kong's `fields`, and Kong's text for it.

use serde_json::{Map, Value};

use crate::lua;

/// Where violations across fields stand.
pub const ENTITY: &str = "@entity";

/// Violations by field: a text, an array (list elements, null where fine) or a nested table; checks across fields stand
/// under `@entity`.
#[derive(Clone, Debug, Default, PartialEq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Violations(pub Map<String, Value>);

impl Violations {
    /// One violation of a field.
    pub fn field(name: &str, text: impl Into<String>) -> Self {
        let mut violations = Self::default();
        violations.set(name, Value::String(text.into()));
        violations
    }

    /// One violation across fields.
    pub fn entity(text: impl Into<String>) -> Self {
        let mut violations = Self::default();
        violations.push_entity(text);
        violations
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a violation across fields.
    pub fn push_entity(&mut self, text: impl Into<String>) {
        let list = self.0.entry(ENTITY).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(Value::String(text.into()));
        }
    }

    /// Sets what is wrong with the field at a dotted path. A text that stands on the way stays.
    pub fn set(&mut self, path: &str, what: Value) {
        let mut table = &mut self.0;
        let (parents, name) = path.rsplit_once('.').map_or(("", path), |(parents, name)| (parents, name));
        for parent in parents.split('.').filter(|p| !p.is_empty()) {
            match table.entry(parent).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(next) => table = next,
                _ => return,
            }
        }
        table.insert(name.to_owned(), what);
    }

    /// What is wrong with the field at a dotted path, or with one of the records around it.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut table = &self.0;
        let mut found = None;
        for part in path.split('.') {
            let value = table.get(part)?;
            found = Some(value);
            match value {
                Value::Object(next) => table = next,
                _ => break,
            }
        }
        found
    }

    /// Takes over what another check found.
    pub fn merge(&mut self, other: Self) {
        for (name, what) in other.0 {
            merge_into(&mut self.0, name, what);
        }
    }

    /// Kong's text: `schema violation (host: required field missing)`.
    pub fn message(&self) -> String {
        let texts = self.texts();
        match texts.as_slice() {
            [one] => format!("schema violation ({one})"),
            many => format!("{} schema violations ({})", many.len(), many.join("; ")),
        }
    }

    /// The texts of [`Self::message`], one by one: those across fields first, then fields in the order of their names.
    pub fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        if let Some(Value::Array(list)) = self.0.get(ENTITY) {
            texts.extend(list.iter().map(plain));
        }
        for (name, what) in lua::sorted(&self.0) {
            if name == ENTITY {
                continue;
            }
            match what {
                Value::Object(fields) => {
                    texts.extend(lua::sorted(fields).into_iter().map(|(sub, what)| format!("{name}.{sub}: {}", plain(what))));
                }
                Value::Array(items) => {
                    let wrong = items.iter().enumerate().filter(|(_, what)| !what.is_null());
                    texts.extend(wrong.map(|(at, what)| format!("{name}.{}: {}", at + 1, plain(what))));
                }
                _ => texts.push(format!("{name}: {}", plain(what))),
            }
        }
        texts
    }
}

fn merge_into(table: &mut Map<String, Value>, name: String, what: Value) {
    match (table.get_mut(&name), what) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            for (name, what) in new {
                merge_into(old, name, what);
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) if name == ENTITY => old.extend(new),
        (_, what) => {
            table.insert(name, what);
        }
    }
}

fn plain(what: &Value) -> String {
    match what {
        Value::String(text) => text.clone(),
        other => lua::dump(other, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_ordered_and_counted() {
        let mut violations = Violations::field("port", "value should be between 0 and 65535");
        violations.set("host", json!("required field missing"));
        violations.push_entity("failed conditional validation given value of field 'config.policy'");
        violations.set("config.redis.host", json!("required field missing"));
        violations.set("paths", json!([null, "should start with: /"]));
        assert_eq!(
            violations.message(),
            "5 schema violations (failed conditional validation given value of field 'config.policy'; config.redis: {\n  host = \
             \"required field missing\"\n}; host: required field missing; paths.2: should start with: /; port: value should be \
             between 0 and 65535)"
        );
    }

    #[test]
    fn paths_reach_into_records_and_stop_at_texts() {
        let mut violations = Violations::field("config", "wrong");
        violations.set("config.a", json!("lost"));
        assert_eq!(violations.get("config.b.c"), Some(&json!("wrong")));
        assert_eq!(violations.get("name"), None);
    }
}
