//! The fields of a row that indexes look at, read from its text without making values of the others.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schema::{EntitySchema, Value};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::text::Name;
use super::{Row, table};
use crate::flat_map::Keyed;

/// The fields of one row, by name.
pub(super) struct Fields<'a> {
    text: &'a str,
    by_name: BTreeMap<Name<'a>, &'a RawValue>,
}

/// A row by one of its values, which is read where the row's text has it.
#[derive(Clone)]
pub(super) struct Held {
    row: Arc<Row>,
    at: u32,
    length: u32,
}

/// Set in a length when the text is JSON to be decoded, and not the value itself.
const ENCODED: u32 = 1 << 31;

impl Held {
    pub fn row(&self) -> &Arc<Row> {
        &self.row
    }
}

impl Keyed<str> for Held {
    fn has_key(&self, key: &str) -> bool {
        let (at, length) = (self.at as usize, (self.length & !ENCODED) as usize);
        let text = &self.row.text()[at..at + length];
        if self.length & ENCODED == 0 { text == key } else { decoded(text).as_deref() == Some(key) }
    }
}

impl<'a> Fields<'a> {
    pub fn of(row: &'a Row) -> Self {
        let text = row.text();
        Self { text, by_name: serde_json::from_str(text).expect("a row's body was written by this program") }
    }

    /// The key of a row in the index of a field, and what the index has for it; nothing where the field is null.
    pub fn held(&self, field: &str, row: &Arc<Row>) -> Option<(Cow<'a, str>, Held)> {
        let raw = self.by_name.get(field)?.get();
        let at = raw.as_ptr() as usize - self.text.as_ptr() as usize;
        let (key, at, length) = match plain(raw) {
            Some(value) => (value.into(), at + 1, value.len() as u32),
            None => (decoded(raw)?.into(), at, raw.len() as u32 | ENCODED),
        };
        Some((key, Held { row: Arc::clone(row), at: at as u32, length }))
    }

    /// The values of `cache_key` as one text. Nothing when it has fewer than two fields.
    pub fn compound_key(&self, schema: &EntitySchema) -> Option<String> {
        if schema.cache_key.len() < 2 {
            return None;
        }
        let values = schema.cache_key.iter().filter_map(|field| Some(((*field).to_owned(), self.value(field)?)));
        table::compound_key(schema, &values.collect())
    }

    /// The id in a foreign key.
    pub fn parent(&self, field: &str) -> Option<Uuid> {
        self.value(field)?.get("id")?.as_str()?.parse().ok()
    }

    /// None where the row has none.
    pub fn tags(&self) -> Vec<String> {
        let tags = self.by_name.get("tags").and_then(|raw| serde_json::from_str(raw.get()).ok());
        tags.unwrap_or_default()
    }

    fn value(&self, field: &str) -> Option<Value> {
        serde_json::from_str(self.by_name.get(field)?.get()).ok()
    }
}

/// What a JSON string without escapes holds.
fn plain(json: &str) -> Option<&str> {
    let value = json.strip_prefix('"')?.strip_suffix('"')?;
    (!value.contains('\\')).then_some(value)
}

fn decoded(json: &str) -> Option<String> {
    serde_json::from_str(json).ok().as_ref().and_then(table::text)
}

#[cfg(test)]
mod tests {
    use schema::json;

    use super::*;
    use crate::model;

    #[test]
    fn values_are_found_in_the_text_however_it_is_written() {
        let schema = model::entity("consumers").expect("an entity");
        let text = r#"{"id":"x","user\u006eame":"a\u0062c","custom_id" : "a\"b\\" ,"tags":["t","\u0075"],"n":[{"username":"no"}]}"#;
        let row = Arc::new(Row::from_text(schema, Uuid::nil(), text.into()));
        let fields = Fields::of(&row);
        let Some((key, held)) = fields.held("username", &row) else { panic!("it has a name") };
        assert_eq!(key, "abc");
        assert!(held.has_key("abc") && !held.has_key(r"a\u0062c") && !held.has_key("ab"));
        let Some((key, held)) = fields.held("custom_id", &row) else { panic!("it has a custom_id") };
        assert_eq!(key, r#"a"b\"#);
        assert!(held.has_key(r#"a"b\"#));
        assert_eq!(fields.tags(), ["t", "u"]);
        assert!(fields.held("other", &row).is_none());
    }

    #[test]
    fn a_plain_value_is_compared_where_it_stands() {
        let schema = model::entity("consumers").expect("an entity");
        let body = json!({"id": Uuid::nil().to_string(), "username": "grüße", "custom_id": null, "tags": null});
        let row = Arc::new(Row::new(schema, Uuid::nil(), body.as_object().expect("an object")));
        let fields = Fields::of(&row);
        let Some((key, held)) = fields.held("username", &row) else { panic!("it has a name") };
        assert_eq!((&*key, held.length & ENCODED), ("grüße", 0));
        assert!(held.has_key("grüße") && !held.has_key("grüß"));
        assert!(fields.held("custom_id", &row).is_none() && fields.tags().is_empty());
    }
}
