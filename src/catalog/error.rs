//! Why a change is refused, in Kong's words and shape.

use schema::{Object, Value, Violations, json};
use uuid::Uuid;

/// Not Kong's codes, and never shown.
const UNAVAILABLE: u8 = u8::MAX;
const TOO_LARGE: u8 = u8::MAX - 1;

/// A refusal: `{"code": 5, "name": "unique constraint violation", "message": "...", "fields": {...}}` and its HTTP status.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct WriteError {
    pub code: u8,
    pub name: String,
    pub message: String,
    pub details: Details,
}

/// What stands beside the message.
#[derive(Clone, Debug, PartialEq)]
pub enum Details {
    None,
    Fields(Value),
    Options(Value),
}

impl WriteError {
    /// A path that should name a row by its id and does not hold a UUID.
    pub fn invalid_primary_key() -> Self {
        let fields = json!({"id": "expected a valid UUID"});
        Self::new(1, "invalid primary key", format!("invalid primary key: '{}'", inline(&fields)), Details::Fields(fields))
    }

    pub fn schema_violation(violations: Violations) -> Self {
        Self::new(2, "schema violation", violations.message(), Details::Fields(Value::Object(violations.0)))
    }

    /// A row with this id is there already.
    pub fn primary_key_violation(id: Uuid) -> Self {
        let fields = json!({"id": id.to_string()});
        let message = format!("primary key violation on key '{}'", inline(&fields));
        Self::new(3, "primary key violation", message, Details::Fields(fields))
    }

    /// A foreign key whose parent is not there.
    pub fn no_parent(field: &str, id: Uuid, parent: &str) -> Self {
        let key = json!({"id": id.to_string()});
        let message = format!("the foreign key '{}' does not reference an existing '{parent}' entity.", inline(&key));
        Self::new(4, "foreign key violation", message, Details::Fields(json!({field: key})))
    }

    /// A row that others refer to cannot be deleted.
    pub fn still_referenced(child: &str, parent: &str) -> Self {
        let message = format!("an existing '{child}' entity references this '{parent}' entity");
        Self::new(4, "foreign key violation", message, Details::Fields(json!({"@referenced_by": child})))
    }

    /// Another row has these values.
    pub fn unique_violation(fields: Object) -> Self {
        let fields = Value::Object(fields);
        let message = format!("UNIQUE violation detected on '{}'", inline(&fields));
        Self::new(5, "unique constraint violation", message, Details::Fields(fields))
    }

    /// No row has this id.
    pub fn not_found(id: Uuid) -> Self {
        let fields = json!({"id": id.to_string()});
        let message = format!("could not find the entity with primary key '{}'", inline(&fields));
        Self::new(6, "not found", message, Details::Fields(fields))
    }

    /// No row has this value in this field.
    pub fn not_found_by(field: &str, value: &str) -> Self {
        let fields = json!({field: value});
        Self::new(6, "not found", format!("could not find the entity with '{}'", inline(&fields)), Details::Fields(fields))
    }

    /// `why` is `bad base64 encoding` or `bad json encoding`.
    pub fn invalid_offset(offset: &str, why: &str) -> Self {
        Self::new(7, "invalid offset", format!("'{offset}' is not a valid offset: {why}"), Details::None)
    }

    /// The cluster takes no writes here at the moment; `why` says why, and is shown.
    pub fn unavailable(why: impl std::fmt::Display) -> Self {
        Self::new(UNAVAILABLE, "unavailable", why.to_string(), Details::None)
    }

    /// The change is more than the cluster can bring from node to node; `why` names the size, and is shown.
    pub fn too_large(why: impl std::fmt::Display) -> Self {
        Self::new(TOO_LARGE, "too large", why.to_string(), Details::None)
    }

    /// The store failed. The client is told nothing of the reason, which is logged where it happened.
    pub fn database() -> Self {
        Self::new(8, "database error", "An unexpected error occurred".to_owned(), Details::None)
    }

    pub fn invalid_size(text: &str) -> Self {
        Self::new(9, "invalid size", text.to_owned(), Details::None)
    }

    /// A value in a path that the field it stands for could never hold.
    pub fn invalid_unique(field: &str, text: &str) -> Self {
        Self::new(10, &format!("invalid unique {field}"), text.to_owned(), Details::None)
    }

    /// A bad query option: `tags: invalid filter syntax`.
    pub fn invalid_option(option: &str, text: &str) -> Self {
        let message = format!("invalid option ({option}: {text})");
        Self::new(11, "invalid options", message, Details::Options(json!({option: text})))
    }

    /// A write to a gateway without a store. `verb` is create, update, create or update, or remove; `by` the field that named
    /// the row when it is not the id.
    pub fn unsupported(verb: &str, entity: &str, by: Option<&str>) -> Self {
        let by = by.map_or_else(String::new, |field| format!(" by '{field}'"));
        let message = format!("cannot {verb} '{entity}' entities{by} when not using a database");
        Self::new(12, "operation unsupported", message, Details::None)
    }

    /// Foreign keys given by other fields than the id, of which no parent has the values: foreign key to texts by field.
    pub fn unresolved(fields: Object) -> Self {
        let mut texts = Vec::new();
        for (foreign, by_field) in &fields {
            for (field, text) in by_field.as_object().into_iter().flatten() {
                texts.push(format!("{foreign}.{field}: {}", text.as_str().unwrap_or_default()));
            }
        }
        texts.sort_unstable();
        let list = texts.join("; ");
        let message = match texts.len() {
            1 => format!("foreign key unresolved ({list})"),
            n => format!("{n} foreign keys unresolved ({list})"),
        };
        Self::new(13, "foreign keys unresolved", message, Details::Fields(Value::Object(fields)))
    }

    /// The text for one field of [`Self::unresolved`].
    pub fn unresolved_text(parent: &str, field: &str, value: &Value) -> String {
        format!("the foreign key cannot be resolved with '{}' for an existing '{parent}' entity", inline(&json!({field: value})))
    }

    /// A row that is named in a list of another entity cannot be deleted.
    pub fn listed_by(what: &str, id: Uuid, entity: &str, other: Uuid) -> Self {
        let message = format!("{what} {id} is still referenced by {entity} (id = {other})");
        Self::new(19, "referenced by others", message, Details::None)
    }

    fn new(code: u8, name: &str, message: String, details: Details) -> Self {
        Self { code, name: name.to_owned(), message, details }
    }

    pub fn status(&self) -> u16 {
        match self.code {
            5 => 409,
            6 => 404,
            8 => 500,
            12 => 405,
            TOO_LARGE => 413,
            UNAVAILABLE => 503,
            _ => 400,
        }
    }

    /// The body of the answer.
    pub fn body(&self) -> Value {
        if [8, TOO_LARGE, UNAVAILABLE].contains(&self.code) {
            return json!({"message": self.message});
        }
        let mut body = json!({"code": self.code, "name": self.name, "message": self.message});
        match &self.details {
            Details::None => {}
            Details::Fields(fields) => body["fields"] = fields.clone(),
            Details::Options(options) => body["options"] = options.clone(),
        }
        body
    }
}

/// A value as Kong writes it within a text: `{consumer=null,name="cors"}`, keys in order.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let mut parts: Vec<String> = table.iter().map(|(key, value)| format!("{key}={}", inline(value))).collect();
            parts.sort_unstable();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!("{{{}}}", items.iter().map(inline).collect::<Vec<_>>().join(",")),
        Value::String(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\\n")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_kong() {
        let id = Uuid::from_u128(1);
        let shown = "00000000-0000-0000-0000-000000000001";
        assert_eq!(WriteError::invalid_primary_key().message, r#"invalid primary key: '{id="expected a valid UUID"}'"#);
        assert_eq!(WriteError::primary_key_violation(id).message, format!(r#"primary key violation on key '{{id="{shown}"}}'"#));
        assert_eq!(
            WriteError::no_parent("service", id, "services").message,
            format!(r#"the foreign key '{{id="{shown}"}}' does not reference an existing 'services' entity."#)
        );
        assert_eq!(WriteError::not_found(id).message, format!(r#"could not find the entity with primary key '{{id="{shown}"}}'"#));
        assert_eq!(WriteError::not_found_by("name", "none").message, r#"could not find the entity with '{name="none"}'"#);
        let fields = json!({"name": "key-auth", "route": null, "service": {"id": "x"}, "consumer": null});
        let error = WriteError::unique_violation(fields.as_object().cloned().unwrap());
        assert_eq!(error.message, r#"UNIQUE violation detected on '{consumer=null,name="key-auth",route=null,service={id="x"}}'"#);
        assert_eq!((error.status(), &error.body()["fields"]), (409, &fields));
        let text = r#"the foreign key cannot be resolved with '{name="x"}' for an existing 'services' entity"#;
        let error = WriteError::unresolved(json!({"service": {"name": text}}).as_object().cloned().unwrap());
        assert_eq!(error.message, format!("foreign key unresolved (service.name: {text})"));
    }
}
