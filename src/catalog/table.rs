//! The rows of one entity with their indexes, as persistent maps: a clone costs nothing and keeps its version.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use schema::{EntitySchema, Object, Value};
use uuid::Uuid;

use super::Row;
use super::fields::{Fields, Held};
use crate::flat_map::{FlatMap, Keyed};

/// The rows of one entity.
#[derive(Clone)]
pub(super) struct Table {
    pub schema: &'static EntitySchema,
    pub rows: OrdMap<Uuid, Arc<Row>>,
    /// The same rows, for look-ups.
    by_id: FlatMap<Arc<Row>>,
    /// Field, then value to row.
    unique: Vec<(&'static str, FlatMap<Held>)>,
    /// The fields of `cache_key`, then their values to row; only where there are two or more.
    compound: FlatMap<Compound>,
    /// Field, then (parent, id) to row.
    foreign: Vec<(&'static str, OrdMap<(Uuid, Uuid), Arc<Row>>)>,
    pub tags: OrdSet<(Arc<str>, Uuid)>,
    /// (end, id) of the rows that end.
    pub ends: OrdSet<(u64, Uuid)>,
}

/// A row by the values of its `cache_key`.
#[derive(Clone)]
struct Compound {
    key: Arc<str>,
    row: Arc<Row>,
}

impl Keyed<str> for Compound {
    fn has_key(&self, key: &str) -> bool {
        *self.key == *key
    }
}

impl Keyed<Uuid> for Arc<Row> {
    fn has_key(&self, id: &Uuid) -> bool {
        self.id == *id
    }
}

impl Table {
    pub fn new(schema: &'static EntitySchema) -> Self {
        let alone = (schema.cache_key.len() == 1).then(|| schema.cache_key[0]);
        let unique = schema.record.fields.iter().filter(|f| f.unique || Some(f.name) == alone);
        Self {
            schema,
            rows: OrdMap::new(),
            by_id: FlatMap::default(),
            unique: unique.map(|f| (f.name, FlatMap::default())).collect(),
            compound: FlatMap::default(),
            foreign: schema.record.foreign_keys().map(|(f, _)| (f.name, OrdMap::new())).collect(),
            tags: OrdSet::new(),
            ends: OrdSet::new(),
        }
    }

    /// Names of the fields whose values are unique each for itself.
    pub fn unique_fields(&self) -> impl Iterator<Item = &'static str> {
        self.unique.iter().map(|(field, _)| *field)
    }

    pub fn get(&self, id: &Uuid) -> Option<&Arc<Row>> {
        self.by_id.get(id).filter(|row| !row.expired())
    }

    pub fn find(&self, field: &str, value: &str) -> Option<&Arc<Row>> {
        let (_, index) = self.unique.iter().find(|(name, _)| *name == field)?;
        index.get(value).map(Held::row).filter(|row| !row.expired())
    }

    /// The row that has the values of `cache_key` which `body` has.
    pub fn find_compound(&self, body: &Object) -> Option<&Arc<Row>> {
        let found = self.compound.get(compound_key(self.schema, body)?.as_str())?;
        Some(&found.row).filter(|row| !row.expired())
    }

    /// The rows that have the unique values of a body, also those whose time is over.
    pub fn holders(&self, body: &Object) -> Vec<Arc<Row>> {
        let alone = self.unique.iter().filter_map(|(field, index)| index.get(body.get(*field).and_then(text)?.as_str()).map(Held::row));
        let together = compound_key(self.schema, body).and_then(|key| self.compound.get(key.as_str())).map(|found| &found.row);
        alone.chain(together).cloned().collect()
    }

    /// Rows of a parent from an id on, in the order of their ids.
    pub fn children(&self, field: &str, parent: Uuid, from: Uuid) -> impl Iterator<Item = &Arc<Row>> {
        // most have no children at all, of some kinds nobody has
        let index = self.foreign.iter().find(|(name, index)| *name == field && !index.is_empty());
        let rows = index.map(|(_, index)| index.range((parent, from)..=(parent, Uuid::max())));
        rows.into_iter().flatten().map(|(_, row)| row).filter(|row| !row.expired())
    }

    /// Rows from an id on, in the order of their ids.
    pub fn from(&self, from: Uuid) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.range(from..).map(|(_, row)| row).filter(|row| !row.expired())
    }

    /// Ids at or after `from` of the rows with a tag.
    pub fn with_tag(&self, tag: &Arc<str>, from: Uuid) -> impl Iterator<Item = Uuid> {
        let bounds = (Bound::Included((tag.clone(), from)), Bound::Included((tag.clone(), Uuid::max())));
        self.tags.range(bounds).map(|(_, id)| *id)
    }

    /// Ids of the rows whose end has come.
    pub fn ended(&self, now: u64) -> impl Iterator<Item = Uuid> {
        self.ends.range(..=(now, Uuid::max())).map(|(_, id)| *id)
    }

    /// Puts a row in the place of the one with its id.
    pub fn insert(&mut self, row: Arc<Row>) {
        self.remove(&row.id);
        let fields = Fields::of(&row);
        for (field, index) in &mut self.unique {
            if let Some((key, held)) = fields.held(field, &row) {
                index.insert(&*key, held);
            }
        }
        if let Some(key) = fields.compound_key(self.schema) {
            self.compound.insert(&*key, Compound { key: Arc::from(&*key), row: row.clone() });
        }
        for (field, index) in &mut self.foreign {
            if let Some(parent) = fields.parent(field) {
                index.insert((parent, row.id), row.clone());
            }
        }
        for tag in fields.tags() {
            let tag = self.known_tag(tag);
            self.tags.insert((tag, row.id));
        }
        if let Some(end) = row.expires() {
            self.ends.insert((end, row.id));
        }
        self.by_id.insert(&row.id, row.clone());
        self.rows.insert(row.id, row);
    }

    /// A tag as one text for all rows that have it.
    fn known_tag(&self, tag: String) -> Arc<str> {
        let first = (Arc::from(tag), Uuid::nil());
        let known = self.tags.get_next(&first).filter(|(known, _)| *known == first.0).map(|(known, _)| Arc::clone(known));
        known.unwrap_or(first.0)
    }

    /// Indexes hold as many entries as the rows have values. Rows whose time is over may have lost a value to another row.
    pub fn check_sizes(&self) {
        if self.rows.values().any(|row| row.expired()) {
            return;
        }
        assert_eq!(self.by_id.len(), self.rows.len(), "{} by id", self.schema.name);
        let bodies: Vec<Object> = self.rows.values().map(|row| row.object()).collect();
        let count = |has: &dyn Fn(&Object) -> usize| bodies.iter().map(has).sum::<usize>();
        for (field, index) in &self.unique {
            let values = count(&|body| usize::from(body.get(*field).and_then(text).is_some()));
            assert_eq!(index.len(), values, "{} by {field}", self.schema.name);
        }
        for (field, index) in &self.foreign {
            let parents = count(&|body| usize::from(parent(body, field).is_some()));
            assert_eq!(index.len(), parents, "{} by {field}", self.schema.name);
        }
        let keys = count(&|body| usize::from(compound_key(self.schema, body).is_some()));
        assert_eq!(self.compound.len(), keys, "{} by compound key", self.schema.name);
    }

    pub fn remove(&mut self, id: &Uuid) -> Option<Arc<Row>> {
        let row = self.rows.remove(id)?;
        self.by_id.remove(id);
        let fields = Fields::of(&row);
        // another row may have taken over a value in the same change
        for (field, index) in &mut self.unique {
            if let Some((key, _)) = fields.held(field, &row)
                && index.get(&*key).is_some_and(|held| held.row().id == *id)
            {
                index.remove(&*key);
            }
        }
        if let Some(key) = fields.compound_key(self.schema)
            && self.compound.get(&*key).is_some_and(|found| found.row.id == *id)
        {
            self.compound.remove(&*key);
        }
        for (field, index) in &mut self.foreign {
            if let Some(parent) = fields.parent(field) {
                index.remove(&(parent, *id));
            }
        }
        for tag in fields.tags() {
            self.tags.remove(&(tag.into(), *id));
        }
        if let Some(end) = row.expires() {
            self.ends.remove(&(end, *id));
        }
        drop(fields);
        Some(row)
    }
}

/// What no other row may have too: a field, or `cache_key` for several at once, and the value.
pub fn unique_values(schema: &EntitySchema, body: &Object) -> Vec<(&'static str, String)> {
    let alone = (schema.cache_key.len() == 1).then(|| schema.cache_key[0]);
    let fields = schema.record.fields.iter().filter(|field| field.unique || Some(field.name) == alone);
    let mut values: Vec<_> = fields.filter_map(|field| Some((field.name, body.get(field.name).and_then(text)?))).collect();
    values.extend(compound_key(schema, body).map(|key| ("cache_key", key)));
    values
}

/// The rows that a row's foreign keys name: entity and id.
pub fn parents(schema: &EntitySchema, body: &Object) -> Vec<(&'static str, Uuid)> {
    schema.record.foreign_keys().filter_map(|(field, to)| Some((to, parent(body, field.name)?))).collect()
}

/// A value as the key of an index; nothing for null.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The values of `cache_key` as one text, nulls included. Nothing when it has fewer than two fields.
pub(super) fn compound_key(schema: &EntitySchema, body: &Object) -> Option<String> {
    if schema.cache_key.len() < 2 {
        return None;
    }
    let part = |field: &&str| body.get(*field).map_or_else(|| "null".to_owned(), Value::to_string);
    Some(schema.cache_key.iter().map(part).collect::<Vec<_>>().join(","))
}

/// The id in a foreign key.
pub(super) fn parent(body: &Object, field: &str) -> Option<Uuid> {
    body.get(field)?.get("id")?.as_str()?.parse().ok()
}

/// The tags of a row.
pub(super) fn tags(body: &Object) -> impl Iterator<Item = &str> {
    body.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
