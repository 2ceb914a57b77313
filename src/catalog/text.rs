//! The text of a row: a part of its fields, without making values of the rest.

use std::borrow::{Borrow, Cow};
use std::fmt;

use schema::Object;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// The wanted fields of a JSON object; nothing when the text is no object that could be read whole.
pub fn some_fields(text: &str, wanted: impl Fn(&str) -> bool) -> Option<Object> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fields = deserializer.deserialize_map(Fields(wanted)).ok()?;
    deserializer.end().ok()?;
    Some(fields)
}

/// The name of a field, however it is written.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Borrow<str> for Name<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

struct Fields<F>(F);

impl<'de, F: Fn(&str) -> bool> Visitor<'de> for Fields<F> {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut fields = Object::new();
        while let Some(Name(name)) = map.next_key()? {
            if (self.0)(&name) {
                fields.insert(name.into_owned(), map.next_value()?);
            } else {
                map.next_value::<Read>()?;
            }
        }
        Ok(fields)
    }
}

/// A value that is read as if it were kept: what serde ignores may be text, numbers and depths that no value can be made of.
struct Read;

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Read {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(Self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Name<'de>, Self>()?.is_some() {}
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use schema::json;

    use super::*;

    #[test]
    fn the_wanted_fields_are_as_in_the_whole() {
        let text = r#"{"id":"\u0061","config":{"list":[1,-2,3.5,null,true,"x"],"deep":{"a\n":{}}},"tags":["a"],"n":null}"#;
        let whole: Object = serde_json::from_str(text).expect("an object");
        assert_eq!(some_fields(text, |_| true).expect("an object"), whole);
        let some = some_fields(text, |name| matches!(name, "id" | "tags")).expect("an object");
        assert_eq!(json!(some), json!({"id": "a", "tags": ["a"]}));
    }

    #[test]
    fn a_text_is_refused_for_what_no_value_can_be_made_of() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for text in ["", "[]", "1", r#"{"a":1}x"#, r#"{"a":}"#, r#"{"a":1e999}"#, r#"{"a":"\ud800"}"#, r#"{"a":"#, deep.as_str()] {
            assert!(serde_json::from_str::<Object>(text).is_err(), "{text}");
            assert!(some_fields(text, |_| false).is_none(), "{text}");
        }
    }
}
