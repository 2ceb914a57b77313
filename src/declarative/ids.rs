//! Ids that follow from names: the same document gives the same ids every time.

use schema::{EntitySchema, Kind, Object, Value};
use uuid::Uuid;

/// The namespace of all ids that follow from names.
const NAMESPACE: Uuid = Uuid::from_u128(0xfd02801f_0957_4a15_a55a_c8d9606f30b5);

/// The id of an entity that has none, when something names it: its unique key, or the fields that are unique together. `parent`
/// is the foreign key that nesting implies.
pub fn id_of(entity: &EntitySchema, input: &Object, parent: Option<(&str, Uuid)>) -> Option<Uuid> {
    let name = name_of(entity, input, parent)?;
    let namespace = Uuid::new_v5(&NAMESPACE, entity.name.as_bytes());
    Some(Uuid::new_v5(&namespace, name.as_bytes()))
}

fn name_of(entity: &EntitySchema, input: &Object, parent: Option<(&str, Uuid)>) -> Option<String> {
    let unique = entity.endpoint_key.and_then(|key| entity.record.get(key)).filter(|f| f.unique && !f.auto);
    if let Some(name) = unique.and_then(|f| input.get(f.name)).and_then(Value::as_str) {
        return Some(name.to_owned());
    }
    if entity.cache_key.is_empty() {
        return None;
    }
    let mut parts = vec![entity.name.to_owned(), "*".to_owned()];
    for &name in entity.cache_key {
        let field = entity.record.get(name)?;
        let part = match input.get(name) {
            _ if field.auto => return None,
            _ if parent.is_some_and(|(of, _)| of == name) => parent.map(|(_, id)| id.to_string()),
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Object(key)) if matches!(field.kind, Kind::Foreign { .. }) => {
                key.get("id").and_then(Value::as_str).map(str::to_owned)
            }
            _ => None,
        };
        match part {
            Some(part) => parts.push(part),
            None if field.required => return None,
            // A field of a newer kind than the ids: when it is not there, it is not part of the name.
            None if field.sparse => {}
            None => parts.push(String::new()),
        }
    }
    Some(parts.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entity;
    use serde_json::json;

    fn id(kind: &str, input: Value, parent: Option<(&str, &str)>) -> Option<String> {
        let parent = parent.map(|(field, id)| (field, id.parse().expect("an id")));
        let input = input.as_object().expect("a table").clone();
        id_of(entity(kind).expect("an entity"), &input, parent).map(|id| id.to_string())
    }

    #[test]
    fn vectors() {
        let vector = |kind, input, parent, expected: &str| assert_eq!(id(kind, input, parent).as_deref(), Some(expected));
        vector("services", json!({"name": "svc"}), None, "b9f04b04-ab65-5e2a-b4c4-f82b7d5b781c");
        vector("routes", json!({"name": "rt"}), None, "b81d4b76-57f0-5e15-ab85-b7432c1ac4c0");
        vector("consumers", json!({"username": "bob"}), None, "def4f7d3-9863-5ad2-8fa9-c949bf26f55e");
        vector("upstreams", json!({"name": "up"}), None, "152df2f3-4eb2-505d-ba48-f128b77c4e89");
        vector("plugins", json!({"name": "cors"}), None, "48ee727e-8b90-5faa-bda1-a3c6bc3c9daa");
        let route = Some(("route", "b81d4b76-57f0-5e15-ab85-b7432c1ac4c0"));
        vector("plugins", json!({"name": "key-auth"}), route, "21dde8e2-6dcf-532b-8b1a-2eedef1a40fd");
        let both = json!({"name": "request-size-limiting", "service": "s", "consumer": "bob"});
        vector("plugins", both, None, "e423ff9d-e0e7-551f-b738-277961b32dd2");
        let bob = Some(("consumer", "def4f7d3-9863-5ad2-8fa9-c949bf26f55e"));
        vector("acls", json!({"group": "g"}), bob, "f363fae2-e46e-560c-8df0-6fb2e9cacfcb");
        let upstream = Some(("upstream", "94822e5b-5e9b-541f-af22-3558028e9eb7"));
        vector("targets", json!({"target": "127.0.0.1:9999"}), upstream, "7fa14601-b8ae-50cc-9b31-2e19078f551e");
        let flat = json!({"target": "127.0.0.1:9999", "upstream": "u1.test"});
        vector("targets", flat, None, "f78ea7d2-da6a-5502-84b2-21578e78c663");
    }

    #[test]
    fn things_without_a_name() {
        assert_eq!(id("services", json!({"host": "h"}), None), None);
        assert_eq!(id("keyauth_credentials", json!({"key": "k", "consumer": "bob"}), None), None);
        assert_eq!(id("consumers", json!({"custom_id": "c"}), None), None);
    }
}
