//! Rows in memory: indexes, uniqueness, foreign keys, cascades. Pure, no I/O.
//!
//! A [`Catalog`] is a value made of persistent maps: a clone costs nothing and keeps its version, so readers hold one as
//! long as they like while the writer makes the next.
//!
//! | module | what it holds |
//! |---|---|
//! | [`row`] | one row: JSON text, and its typed struct when it is asked for |
//! | [`text`] | a part of a row's fields out of its text |
//! | [`page`] | pages of rows, by id and by tag |
//! | [`change`] | what is asked of the catalog, and what becomes of it |
//! | [`error`] | why a change is refused, in Kong's words |
//! | [`vault`] | values that stand somewhere else: `{vault://env/my-secret}` |

pub mod change;
mod delete;
pub mod error;
mod fields;
mod invariants;
pub mod page;
mod plan;
pub mod row;
mod schemas;
mod table;
pub mod text;
pub mod vault;

use std::sync::{Arc, LazyLock};

use imbl::ordmap::DiffItem;
use schema::{EntitySchema, Object};
use uuid::Uuid;

use crate::model::ENTITIES;

pub use change::{Change, Edit, Outcome, Plan, Written};
pub use error::WriteError;
pub use page::{Page, Rows, TagFilter, Tagged};
pub use row::Row;
pub use schemas::{Choose, Schemas};
pub use table::{parents, unique_values};

use table::Table;

/// What names a row in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Id(Uuid),
    /// The value of a field that is unique, at least among the rows of a parent.
    Unique {
        field: &'static str,
        value: String,
    },
}

/// A parent that a row must have: in `/upstreams/{u}/targets/{t}` the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The foreign key.
    pub field: &'static str,
    pub parent: Uuid,
}

/// All rows of all entities, in one version.
#[derive(Clone)]
pub struct Catalog {
    tables: Vec<Arc<Table>>,
}

/// Place of each entity in [`ENTITIES`].
static PLACES: LazyLock<ahash::HashMap<&'static str, usize>> =
    LazyLock::new(|| ENTITIES.iter().enumerate().map(|(at, entity)| (entity.name, at)).collect());

impl Default for Catalog {
    fn default() -> Self {
        Self { tables: ENTITIES.iter().map(|schema| Arc::new(Table::new(schema))).collect() }
    }
}

impl Catalog {
    /// A catalog of rows that are known to be good: read from disk or made by a plan.
    pub fn of(rows: impl IntoIterator<Item = Arc<Row>>) -> Self {
        let mut catalog = Self::default();
        for row in rows {
            catalog.insert(row);
        }
        catalog
    }

    /// The row with an id.
    pub fn get(&self, entity: &str, id: &Uuid) -> Option<&Arc<Row>> {
        self.table(entity)?.get(id)
    }

    /// The row whose unique `field` has this value.
    pub fn find(&self, entity: &str, field: &str, value: &str) -> Option<&Arc<Row>> {
        self.table(entity)?.find(field, value)
    }

    /// The row that has the same values as `body` in the fields of the entity's `cache_key` (two or more), nulls included.
    pub fn find_compound(&self, entity: &str, body: &Object) -> Option<&Arc<Row>> {
        self.table(entity)?.find_compound(body)
    }

    /// The row that a path names; with a scope, only among the rows of that parent.
    pub fn select(&self, entity: &str, key: &Key, scope: Option<Scope>) -> Option<&Arc<Row>> {
        let table = self.table(entity)?;
        let within = |row: &&Arc<Row>| scope.is_none_or(|scope| table::parent(&row.object(), scope.field) == Some(scope.parent));
        match key {
            Key::Id(id) => table.get(id).filter(within),
            Key::Unique { field, value } if table.unique_fields().any(|name| name == *field) => table.find(field, value).filter(within),
            Key::Unique { field, value } => {
                let has = |row: &&Arc<Row>| row.object().get(*field).and_then(table::text).as_ref() == Some(value);
                let scope = scope?;
                table.children(scope.field, scope.parent, Uuid::nil()).find(has)
            }
        }
    }

    /// All rows of an entity in the order of their ids.
    pub fn rows(&self, entity: &str) -> impl Iterator<Item = &Arc<Row>> {
        self.table(entity).into_iter().flat_map(|table| table.from(Uuid::nil()))
    }

    /// The rows whose foreign key `field` is `parent`, in the order of their ids.
    pub fn children(&self, entity: &str, field: &str, parent: Uuid) -> impl Iterator<Item = &Arc<Row>> {
        self.table(entity).into_iter().flat_map(move |table| table.children(field, parent, Uuid::nil()))
    }

    /// The row with an id, also when its time is over and it was not taken out yet.
    pub fn kept(&self, entity: &str, id: &Uuid) -> Option<&Arc<Row>> {
        self.table(entity)?.rows.get(id)
    }

    /// Rows whose time is over and that still have a value which only one row may have, and which this one is to have.
    pub fn expired_holders(&self, row: &Row) -> Vec<Arc<Row>> {
        let body = row.indexed();
        let holders = self.table(row.schema.name).map_or_else(Vec::new, |table| table.holders(&body));
        holders.into_iter().filter(|holder| holder.expired() && holder.id != row.id).collect()
    }

    /// The rows that have this one as a parent.
    pub fn referring_to(&self, parent: &'static EntitySchema, id: Uuid) -> impl Iterator<Item = &Arc<Row>> {
        let fields = ENTITIES.iter().flat_map(|child| child.record.foreign_keys().map(move |(field, to)| (child.name, field.name, to)));
        fields.filter(move |(_, _, to)| *to == parent.name).flat_map(move |(child, field, _)| self.children(child, field, id))
    }

    /// Whether an entity has the very same rows in another version. Costs nothing; false may be said of equal rows.
    pub fn same_rows(&self, other: &Self, entity: &str) -> bool {
        let at = |catalog: &Self| PLACES.get(entity).and_then(|place| catalog.tables.get(*place)).map(Arc::as_ptr);
        at(self) == at(other)
    }

    /// The rows of an entity that differ from those of another version: the ids, and what stands there now. Costs about what
    /// has changed since.
    pub fn changes<'a>(&'a self, since: &Self, entity: &str) -> Vec<(Uuid, Option<&'a Arc<Row>>)> {
        let (Some(before), Some(now)) = (since.table(entity), self.table(entity)) else { return Vec::new() };
        before
            .rows
            .diff(&now.rows)
            .map(|change| match change {
                DiffItem::Add(id, row) | DiffItem::Update { new: (id, row), .. } => (*id, Some(row)),
                DiffItem::Remove(id, _) => (*id, None),
            })
            .collect()
    }

    /// The catalog with these edits made, which are known to be good.
    pub fn edited(&self, edits: &[Edit]) -> Self {
        let mut next = self.clone();
        // Former values first, so that rows may change them with each other.
        edits.iter().for_each(|edit| next.remove(edit.entity(), &edit.id()));
        for edit in edits {
            if let Edit::Put(row) = edit {
                next.insert(row.clone());
            }
        }
        next
    }

    /// The rows whose time was over at `now`, in milliseconds since the epoch.
    pub fn ended(&self, now: u64) -> Vec<(&'static EntitySchema, Uuid)> {
        self.tables().flat_map(|table| table.ended(now).map(|id| (table.schema, id))).collect()
    }

    /// How many rows an entity has.
    pub fn len(&self, entity: &str) -> usize {
        self.table(entity).map_or(0, |table| table.rows.len())
    }

    /// Whether no entity has a row.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.rows.is_empty())
    }

    /// A row as the Admin API shows it: with a certificate's `snis` and the seconds that a row with an end has left.
    pub fn shown(&self, row: &Row) -> Object {
        let mut body = row.object();
        if row.schema.name == "certificates" {
            let mut names: Vec<String> =
                self.children("snis", "certificate", row.id).filter_map(|sni| sni.object().get("name").and_then(table::text)).collect();
            names.sort_unstable();
            body.insert("snis".to_owned(), names.into());
        }
        if row.schema.ttl {
            body.insert("ttl".to_owned(), row.ttl().into());
        }
        body
    }

    fn table(&self, entity: &str) -> Option<&Table> {
        self.tables.get(*PLACES.get(entity)?).map(|table| &**table)
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().map(|table| &**table)
    }

    fn insert(&mut self, row: Arc<Row>) {
        if let Some(table) = self.table_mut(row.schema) {
            table.insert(row);
        }
    }

    fn remove(&mut self, schema: &EntitySchema, id: &Uuid) {
        if let Some(table) = self.table_mut(schema) {
            table.remove(id);
        }
    }

    /// The fields of an entity whose values are unique each for itself.
    fn unique_fields(&self, entity: &str) -> impl Iterator<Item = &'static str> {
        self.table(entity).into_iter().flat_map(Table::unique_fields)
    }

    /// When the first row ends, in milliseconds since the epoch.
    pub fn next_end(&self) -> Option<u64> {
        self.tables().filter_map(|table| table.ends.get_min().map(|(end, _)| *end)).min()
    }

    fn table_mut(&mut self, schema: &EntitySchema) -> Option<&mut Table> {
        self.tables.get_mut(*PLACES.get(schema.name)?).map(Arc::make_mut)
    }
}

#[cfg(test)]
mod tests;
