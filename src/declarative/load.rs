//! The entities of a document -> rows, or everything that is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;

use schema::{Context, EntitySchema, Object, Value, Violations, rules, validate};
use serde_json::json;
use uuid::Uuid;

use super::error::DeclarativeError;
use super::flatten::Faulty;
use super::ids::id_of;
use super::tree::{Item, Path, Tree};
use crate::catalog::Row;
use crate::catalog::row::now;
use crate::model::ENTITIES;

/// Greatest `ttl`, in seconds.
const LONGEST_TTL: f64 = 100_000_000.0;

/// Completes and validates all entities of a document. Nothing is wrong with the answer's rows as they stand together.
pub fn load(document: Value, context: &Context) -> Result<Vec<Arc<Row>>, DeclarativeError> {
    let document = match document {
        Value::Object(document) => document,
        Value::Array(list) if list.is_empty() => Object::new(),
        _ => return Err(DeclarativeError::unreadable("expected an object")),
    };
    let tree = Tree::read(document);
    let context = &Context { transform: tree.transform, ..*context };
    let names = Names::of(&tree.items);
    let checked: Vec<Checked> = tree.items.iter().enumerate().map(|(at, _)| check(&tree, &names, at, context)).collect();

    let wrong = |c: &Checked| c.body.is_err() || c.foreign_parent;
    if !tree.problems.is_empty() || !tree.strays.is_empty() || checked.iter().any(wrong) {
        return Err(violations(&tree, checked));
    }
    let bodies: Vec<&Object> = checked.iter().filter_map(|c| c.body.as_ref().ok()).collect();
    let twice = duplicates(&tree.items, &names, &bodies);
    let unresolved = checked.iter().any(|c| !c.unresolved.is_empty());
    if !twice.is_empty() || unresolved {
        return Err(clashes(&tree, &names, &checked, twice));
    }
    Ok(rows(&tree, &names, checked))
}

/// Ids and names of a document's entities.
struct Names {
    ids: Vec<Uuid>,
    /// Whether the id is written or follows from names.
    known: Vec<bool>,
    by_id: HashMap<(&'static str, Uuid), usize>,
    by_key: HashMap<(&'static str, String), usize>,
}

impl Names {
    fn of(items: &[Item]) -> Self {
        let mut names = Self { ids: Vec::new(), known: Vec::new(), by_id: HashMap::new(), by_key: HashMap::new() };
        for (at, item) in items.iter().enumerate() {
            let parent = item.parent.map(|(parent, field)| (field, names.ids[parent]));
            let written = item.input.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
            let id = written.or_else(|| id_of(item.entity, &item.input, parent));
            names.ids.push(id.unwrap_or_else(Uuid::new_v4));
            names.known.push(id.is_some());
            names.by_id.entry((item.entity.name, names.ids[at])).or_insert(at);
            if let Some(key) = endpoint_key(item) {
                names.by_key.entry((item.entity.name, key.to_owned())).or_insert(at);
            }
        }
        names
    }

    /// The id of the entity that a text in a foreign key means.
    fn find(&self, entity: &'static str, text: &str) -> Option<Uuid> {
        let by_key = || self.by_key.get(&(entity, text.to_owned())).copied();
        let by_id = || text.parse().ok().and_then(|id: Uuid| self.by_id.get(&(entity, id)).copied());
        by_key().or_else(by_id).and_then(|at| self.ids.get(at).copied())
    }
}

/// The value by which the entity may be named, when it is unique on its own.
fn endpoint_key(item: &Item) -> Option<&str> {
    let field = item.entity.endpoint_key.and_then(|key| item.entity.record.get(key)).filter(|f| f.unique)?;
    item.input.get(field.name).and_then(Value::as_str)
}

/// An entity after validation.
struct Checked {
    body: Result<Object, Violations>,
    /// When the row ends, in milliseconds since the epoch.
    end: Option<u64>,
    /// Foreign keys that name nothing: `(field, written, entity)`.
    unresolved: Vec<(&'static str, String, &'static str)>,
    /// The foreign key that nesting implies is written too.
    parent_written: Option<&'static str>,
    /// ... and names no entity at all.
    foreign_parent: bool,
}

fn check(tree: &Tree, names: &Names, at: usize, context: &Context) -> Checked {
    let item = &tree.items[at];
    let mut input = item.input.clone();
    let mut wrong = Violations(item.problems.clone());
    let (mut unresolved, mut parent_written, mut foreign_parent) = (Vec::new(), None, false);
    if !input.contains_key("id") {
        input.insert("id".to_owned(), names.ids[at].to_string().into());
    }
    for (field, to) in item.entity.record.foreign_keys() {
        let written = input.get(field.name).filter(|v| !v.is_null());
        let found = match written {
            Some(Value::String(text)) => names.find(to, text),
            Some(Value::Object(key)) => key.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok()),
            _ => None,
        };
        let implied = item.parent.filter(|(_, implied)| *implied == field.name).map(|(parent, _)| names.ids[parent]);
        let resolved = match (implied, written) {
            (Some(parent), written) => {
                if written.is_some() {
                    parent_written = Some(field.name);
                    foreign_parent = found.is_none();
                }
                parent
            }
            (None, Some(Value::String(text))) => found.unwrap_or_else(|| {
                unresolved.push((field.name, text.clone(), to));
                // Stands in for the entity that is missing, so that the rest can be checked.
                Uuid::nil()
            }),
            (None, Some(Value::Object(_))) => {
                if let Some(id) = found.filter(|id| !names.by_id.contains_key(&(to, *id))) {
                    unresolved.push((field.name, id.to_string(), to));
                }
                continue;
            }
            _ => continue,
        };
        input.insert(field.name.to_owned(), json!({ "id": resolved }));
    }
    let mut end = None;
    if item.entity.ttl {
        match input.remove("ttl") {
            None | Some(Value::Null) => {}
            Some(Value::Number(ttl)) if ttl.as_f64().is_some_and(|ttl| (0.0..=LONGEST_TTL).contains(&ttl)) => {
                end = ttl.as_f64().filter(|ttl| *ttl > 0.0).map(|ttl| now() + (ttl * 1000.0) as u64);
            }
            Some(Value::Number(_)) => wrong.set("ttl", "value should be between 0 and 100000000".into()),
            Some(_) => wrong.set("ttl", "expected a number".into()),
        }
    }
    let body = match validate::insert(item.entity, input, context) {
        Ok(body) if wrong.is_empty() => Ok(body),
        Ok(_) => Err(wrong),
        Err(mut found) => {
            found.merge(wrong);
            Err(found)
        }
    };
    Checked { body, end, unresolved, parent_written, foreign_parent }
}

/// What is wrong with single entities. As long as there is such, references to nothing look like broken keys.
fn violations(tree: &Tree, checked: Vec<Checked>) -> DeclarativeError {
    let mut fields = tree.problems.clone();
    let mut elsewhere = tree.problems.clone();
    for (path, what) in &tree.strays {
        place(&mut fields, path, what.clone());
        place(&mut elsewhere, path, what.clone());
    }
    let mut faulty = Vec::new();
    for (item, checked) in tree.items.iter().zip(checked) {
        let mut wrong = checked.body.err().unwrap_or_default();
        for (field, _, _) in checked.unresolved {
            wrong.set(field, json!({ "id": "missing primary key" }));
        }
        if let Some(field) = checked.parent_written {
            wrong.set(field, "value must be null".into());
        }
        if wrong.is_empty() {
            continue;
        }
        place(&mut fields, &item.path, wrong.clone().into());
        faulty.push(Faulty { entity: item.entity, input: with_parent(tree, item), what: wrong.into() });
    }
    DeclarativeError { fields, elsewhere, references: Object::new(), faulty }
}

/// The input with the id of the parent, when that is written.
fn with_parent(tree: &Tree, item: &Item) -> Object {
    let mut input = item.input.clone();
    if let Some((parent, field)) = item.parent
        && let Some(id) = tree.items[parent].input.get("id")
    {
        input.insert(field.to_owned(), json!({ "id": id }));
    }
    input
}

/// Entities that say of themselves what another has said before: `(place in items, text)`.
fn duplicates(items: &[Item], names: &Names, bodies: &[&Object]) -> Vec<(usize, String)> {
    let mut seen: HashMap<(&str, String), ()> = HashMap::new();
    let mut twice = Vec::new();
    for (at, (item, body)) in items.iter().zip(bodies).enumerate() {
        let entity = item.entity;
        let text = |what: &str, value: &str| {
            format!("uniqueness violation: '{}' entity with {what} set to '{value}' already declared", entity.name)
        };
        let mut first = true;
        let mut claim = |what: String, value: String| {
            let new = seen.insert((entity.name, format!("{what}={value}")), ()).is_none();
            if !new && first {
                first = false;
                twice.push((at, text(&what, &value)));
            }
        };
        if let Some(key) = endpoint_key(item) {
            claim(entity.endpoint_key.unwrap_or_default().to_owned(), key.to_owned());
        }
        claim("primary key".to_owned(), names.ids[at].to_string());
        for field in entity.record.fields.iter().filter(|f| f.unique) {
            if let Some(value) = body.get(field.name).filter(|v| !v.is_null() && entity.endpoint_key != Some(field.name)) {
                claim(field.name.to_owned(), rules::shown(value));
            }
        }
        if let Some((what, value)) = compound(entity, body) {
            claim(what, value);
        }
    }
    twice
}

/// Names and values of the fields that are unique together; `None` when one field alone is.
fn compound(entity: &EntitySchema, body: &Object) -> Option<(String, String)> {
    if entity.cache_key.len() < 2 {
        return None;
    }
    let value = |field: &&str| body.get(*field).map(|v| v.get("id").unwrap_or(v)).map_or(String::new(), rules::shown);
    let values: Vec<String> = entity.cache_key.iter().map(value).collect();
    Some((entity.cache_key.join(", "), values.join(", ")))
}

/// What is wrong between entities: two of the same name, references to nothing.
fn clashes(tree: &Tree, names: &Names, checked: &[Checked], twice: Vec<(usize, String)>) -> DeclarativeError {
    let (mut fields, mut references, mut faulty) = (Object::new(), Object::new(), Vec::new());
    for (at, text) in twice {
        let item = &tree.items[at];
        place(&mut fields, &item.path, text.clone().into());
        let mut input = with_parent(tree, item);
        if names.known[at] {
            input.insert("id".to_owned(), names.ids[at].to_string().into());
        }
        faulty.push(Faulty { entity: item.entity, input, what: text.into() });
    }
    for (at, (item, checked)) in tree.items.iter().zip(checked).enumerate() {
        for (field, written, to) in &checked.unresolved {
            let text = format!("invalid reference '{field}: {written}' (no such entry in '{to}')");
            let known = names.known[at].then(|| names.ids[at].to_string());
            let place_number = item.path.last().map_or(0, |(_, at)| *at);
            let label = endpoint_key(item).map(str::to_owned).or(known).unwrap_or_else(|| (place_number + 1).to_string());
            for fields in [&mut fields, &mut references] {
                let table = keyed(fields, item.entity.name);
                let texts = table.entry(label.clone()).or_insert_with(|| json!([]));
                if let Value::Array(texts) = texts {
                    texts.push(text.clone().into());
                }
            }
        }
    }
    DeclarativeError { fields, elsewhere: Object::new(), references, faulty }
}

/// The table under a name; a list that stands there becomes a table of its places.
fn keyed<'a>(fields: &'a mut Object, name: &str) -> &'a mut Object {
    let slot = fields.entry(name.to_owned()).or_insert_with(|| json!({}));
    if let Value::Array(list) = slot {
        let wrong = std::mem::take(list).into_iter().enumerate().filter(|(_, what)| !what.is_null());
        *slot = Value::Object(wrong.map(|(at, what)| ((at + 1).to_string(), what)).collect());
    }
    match slot {
        Value::Object(table) => table,
        _ => unreachable!("lists became tables, and nothing else is put there"),
    }
}

/// Puts what is wrong with an entity where the entity stands.
fn place(fields: &mut Object, path: &Path, what: Value) {
    let Some(((list, at), inner)) = path.split_first() else {
        return;
    };
    let slot = fields.entry(list.clone()).or_insert_with(|| json!([]));
    let Value::Array(items) = slot else {
        return;
    };
    while items.len() <= *at {
        items.push(Value::Null);
    }
    let slot = &mut items[*at];
    if slot.is_null() {
        *slot = if inner.is_empty() && !what.is_object() { what.clone() } else { json!({}) };
    }
    match (slot, what) {
        (Value::Object(table), what) if !inner.is_empty() => place(table, &inner.to_vec(), what),
        (Value::Object(table), Value::Object(what)) => table.extend(what),
        _ => {}
    }
}

fn rows(tree: &Tree, names: &Names, checked: Vec<Checked>) -> Vec<Arc<Row>> {
    let mut rows: Vec<Arc<Row>> = Vec::with_capacity(checked.len());
    for ((item, checked), id) in tree.items.iter().zip(checked).zip(&names.ids) {
        if let Ok(mut body) = checked.body {
            body.retain(|name, _| item.entity.record.get(name).is_none_or(|f| !f.transient));
            rows.push(Arc::new(Row::new(item.entity, *id, &body).expiring(checked.end)));
        }
    }
    let order: HashMap<&str, usize> = ENTITIES.iter().enumerate().map(|(at, entity)| (entity.name, at)).collect();
    rows.sort_by_key(|row| order.get(row.schema.name).copied());
    rows
}
