//! What is asked of the catalog, and what becomes of it.

use std::sync::Arc;

use schema::{EntitySchema, Object};
use uuid::Uuid;

use super::{Catalog, Key, Row, Scope};

/// A change of configuration, as the Admin API or an import asks for it.
#[derive(Clone, Debug)]
pub enum Change {
    /// POST. Foreign keys that a nested path implies stand in the input.
    Create { entity: &'static EntitySchema, input: Object },
    /// PUT: makes the row be what the input and the defaults say, whether it is there or not.
    Upsert { entity: &'static EntitySchema, key: Key, scope: Option<Scope>, input: Object },
    /// PATCH: merges the input into the row.
    Update { entity: &'static EntitySchema, key: Key, scope: Option<Scope>, input: Object },
    /// DELETE, with what hangs on the row. A row that is not there is no error.
    Delete { entity: &'static EntitySchema, key: Key, scope: Option<Scope> },
    /// Several changes of which all happen or none.
    All(Vec<Change>),
    /// Complete rows that take the place of those with their ids.
    Import(Vec<Arc<Row>>),
    /// Complete rows that take the place of everything.
    Replace(Vec<Arc<Row>>),
    /// Removes the rows whose time is over.
    Sweep,
}

/// What a change does, row by row.
pub struct Plan {
    pub edits: Vec<Edit>,
    /// The row that the change was about.
    pub outcome: Outcome,
    /// The catalog with the change made.
    pub next: Catalog,
}

/// One row's part of a plan.
#[derive(Clone, Debug)]
pub enum Edit {
    Put(Arc<Row>),
    Remove(&'static EntitySchema, Uuid),
}

impl Edit {
    pub fn entity(&self) -> &'static EntitySchema {
        match self {
            Self::Put(row) => row.schema,
            Self::Remove(entity, _) => entity,
        }
    }

    pub fn id(&self) -> Uuid {
        match self {
            Self::Put(row) => row.id,
            Self::Remove(_, id) => *id,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub enum Outcome {
    /// Nothing to show: a deletion, an import.
    #[default]
    Nothing,
    Created(Arc<Row>),
    Updated(Arc<Row>),
}

/// A change that was made and is live.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The row as the Admin API shows it.
    pub shown: Option<Object>,
    /// Whether the row was not there before.
    pub created: bool,
}
