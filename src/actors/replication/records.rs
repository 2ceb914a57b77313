//! Rows as records of the cluster, and back. The body is the row's JSON text; a second line says when the row ends, if it does.

use std::sync::Arc;

use cluster::engine::{Draft, Unique};
use cluster::id::Key;
use cluster::record::{Body, Record};
use schema::{EntitySchema, Object, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::catalog::text::some_fields;
use crate::catalog::{Row, parents, unique_values};
use crate::model;

/// Longer values are claimed by their digest: a claim has at most 1,024 bytes.
const LONGEST_VALUE: usize = 900;

/// Names that an entity can do without: who loses one to an older claim stays in effect under its id. Every other unique value is
/// what requests or other entities go by, and an entity without it is not in effect.
const NAMES: &[(&str, &str)] = &[
    ("services", "name"),
    ("routes", "name"),
    ("consumers", "username"),
    ("consumers", "custom_id"),
    ("plugins", "instance_name"),
    ("key_sets", "name"),
    ("keys", "name"),
];

pub fn key(entity: &EntitySchema, id: Uuid) -> Key {
    Key::new(entity.name, id.to_string())
}

/// What a key names; `None` when this version has no such entity.
pub fn named(key: &Key) -> Option<(&'static EntitySchema, Uuid)> {
    Some((model::entity(&key.kind)?, Uuid::try_parse(&key.id).ok()?))
}

/// A row as it is written.
pub fn draft(row: &Row) -> Draft {
    let body = row.indexed();
    let unique = unique_values(row.schema, &body).into_iter().map(|(field, value)| Unique {
        field: format!("{}.{field}", row.schema.name).into(),
        value: if value.len() > LONGEST_VALUE { format!("{:x}", Hex(&Sha256::digest(value))).into() } else { value.into() },
        exclusive: !NAMES.contains(&(row.schema.name, field)),
    });
    let unique = unique.collect();
    let parents = parents(row.schema, &body).into_iter().map(|(entity, id)| Key::new(entity, id.to_string())).collect();
    Draft { key: key(row.schema, row.id), parents, unique, body: Some(body_of(row)), expect: None }
}

/// A deletion as it is written.
pub fn deletion(key: Key) -> Draft {
    Draft { key, parents: Vec::new(), unique: Vec::new(), body: None, expect: None }
}

/// The row's own text where that is the body.
fn body_of(row: &Row) -> Body {
    match row.expires() {
        Some(end) => Body::from(format!("{}\n{end}", row.text()).into_bytes()),
        None if row.shared_text().len() == row.text().len() => Arc::clone(row.shared_text()).into(),
        None => Body::from(row.text().as_bytes()),
    }
}

/// The row of a record, which shares its text with it; without the names that another entity has the older claim to.
pub fn row(record: &Record, lost: &[&str]) -> Result<Row, String> {
    let (schema, id) = named(&record.key).ok_or("this version has no such entity")?;
    let text = record.body.as_ref().ok_or("it is deleted")?.text().ok_or("it is not a text")?;
    let (body, end) = match text.split_once('\n') {
        Some((body, end)) => (body, Some(end.parse().map_err(|_| "its end is not a time")?)),
        None => (&**text, None),
    };
    let mut object: Object = some_fields(body, |name| name == "id" || !lost.is_empty()).ok_or("it is not a JSON object")?;
    if object.get("id").and_then(Value::as_str) != Some(&*record.key.id) {
        return Err("it does not carry its own id".to_owned());
    }
    if lost.is_empty() {
        return Ok(Row::beginning(schema, id, Arc::clone(text), body.len()).expiring(end));
    }
    for field in lost {
        object.insert((*field).to_owned(), Value::Null);
    }
    Ok(Row::new(schema, id, &object).expiring(end))
}

/// Whether a row that is in effect was made of this record.
pub fn is_of(present: &Row, record: &Record) -> bool {
    let Ok(made) = row(record, &[]) else { return false };
    if present.expires() != made.expires() {
        return false;
    }
    if present.text() == made.text() {
        return true;
    }
    let (shown, whole) = (present.object(), made.object());
    let lost = |field: &str| NAMES.contains(&(present.schema.name, field)) && shown.get(field).is_some_and(Value::is_null);
    shown.len() == whole.len() && whole.iter().all(|(field, value)| shown.get(field) == Some(value) || lost(field))
}

/// Bytes in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl std::fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use cluster::clock::Stamp;
    use cluster::id::NodeId;
    use cluster::record::Version;
    use schema::json;

    use super::*;

    fn consumer(username: Value) -> Row {
        let schema = model::entity("consumers").expect("an entity");
        let id = Uuid::from_u128(7);
        let body = json!({"id": id.to_string(), "username": username, "custom_id": null, "tags": null});
        Row::new(schema, id, body.as_object().expect("an object"))
    }

    fn record(row: &Row) -> Record {
        let draft = draft(row);
        let stamp = Stamp::new(5, 0, NodeId(1));
        let version = Version { life: 1, stamp };
        Record::new(draft.key, version, Version::NONE, stamp, draft.parents, Vec::new(), draft.body).expect("a record")
    }

    #[test]
    fn a_row_comes_back_as_it_went() {
        for end in [None, Some(99)] {
            let there = consumer("a".into()).expiring(end);
            let record = record(&there);
            let back = row(&record, &[]).expect("a row");
            assert_eq!((back.text(), back.expires(), back.id), (there.text(), end, there.id));
            assert!(is_of(&there, &record));
        }
    }

    #[test]
    fn a_text_is_in_memory_once() {
        let there = consumer("a".into());
        let draft = draft(&there);
        assert!(std::ptr::eq(draft.body.as_ref().expect("a body").as_ptr(), there.text().as_ptr()));
        for end in [None, Some(99)] {
            let record = record(&consumer("a".into()).expiring(end));
            let back = row(&record, &[]).expect("a row");
            assert!(std::ptr::eq(record.body.as_ref().expect("a body").as_ptr(), back.text().as_ptr()));
        }
    }

    #[test]
    fn a_lost_name_is_left_out_and_the_row_is_still_that_record() {
        let record = record(&consumer("a".into()));
        let without = row(&record, &["username"]).expect("a row");
        assert_eq!(without.text(), consumer(Value::Null).text());
        assert!(is_of(&without, &record));
        assert!(!is_of(&consumer("b".into()), &record));
    }

    #[test]
    fn what_must_be_unique_is_claimed() {
        let claims = draft(&consumer("a".into())).unique;
        assert_eq!(claims, [Unique { field: "consumers.username".into(), value: "a".into(), exclusive: false }]);
        let schema = model::entity("keyauth_credentials").expect("an entity");
        let body =
            json!({"id": Uuid::from_u128(1).to_string(), "key": "k".repeat(2000), "consumer": {"id": Uuid::from_u128(7).to_string()}});
        let draft = draft(&Row::new(schema, Uuid::from_u128(1), body.as_object().expect("an object")));
        assert_eq!(draft.parents, [Key::new("consumers", Uuid::from_u128(7).to_string())]);
        assert!(draft.unique.iter().all(|unique| unique.exclusive && unique.value.len() == 64));
    }
}
