//! The tree of violations, in the shape of Kong's `fields`, and Kong's text for it.

use serde_json::{Map, Value};

/// Violations by field: a text, an array (list elements, null where fine) or a nested table; checks across fields stand
/// under `@entity`.
#[derive(Clone, Debug, Default, PartialEq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Violations(pub Map<String, Value>);

impl Violations {
    /// One violation of a field.
    pub fn field(name: &str, text: impl Into<String>) -> Self {
        Self(Map::from_iter([(name.to_owned(), Value::String(text.into()))]))
    }

    /// One violation across fields.
    pub fn entity(text: impl Into<String>) -> Self {
        Self(Map::from_iter([("@entity".to_owned(), Value::Array(vec![Value::String(text.into())]))]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Kong's text: `schema violation (host: required field missing)`.
    pub fn message(&self) -> String {
        format!("schema violation ({})", Value::Object(self.0.clone()))
    }
}
