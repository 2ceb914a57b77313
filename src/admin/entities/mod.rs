//! The endpoints that every entity has: `/E`, `/E/{id}`, `/P/{p}/E`, `/P/{p}/E/{id}` below each parent, and `/E/{id}/f` for the
//! parent that a foreign key names.

pub mod collection;
pub mod element;
pub mod foreign;
pub mod input;
pub mod page;

use schema::EntitySchema;

use crate::admin::answer::Answer;
use crate::admin::call::{self, Call};
use crate::admin::table::{Table, handler};
use crate::catalog::{Key, Scope};
use crate::model::{self, ENTITIES};

/// What a generated endpoint is about.
#[derive(Clone, Copy)]
pub struct Subject {
    pub entity: &'static EntitySchema,
    /// The parent in the path and the foreign key that leads to it.
    pub below: Option<(&'static EntitySchema, &'static str)>,
}

pub fn endpoints(table: &mut Table) {
    for &entity in ENTITIES.iter().filter(|e| e.admin_api) {
        let own = Subject { entity, below: None };
        put(table, &format!("/{}", entity.path()), own);
        for (field, parent) in entity.record.foreign_keys() {
            let Some(parent) = model::entity(parent).filter(|p| p.admin_api) else { continue };
            let below = Subject { entity, below: Some((parent, field.name)) };
            put(table, &format!("/{}/{{{}}}/{}", parent.path(), parent.name, entity.nested_path()), below);
            put_foreign(table, &format!("/{}/{{{}}}/{}", entity.path(), entity.name, field.name), below);
        }
    }
}

fn put(table: &mut Table, path: &str, subject: Subject) {
    table.put(
        path,
        [("GET", handler(move |call| collection::list(call, subject))), ("POST", handler(move |call| collection::create(call, subject)))],
    );
    table.put(
        &format!("{path}/{{{}}}", subject.entity.name),
        [
            ("GET", handler(move |call| element::get(call, subject))),
            ("PUT", handler(move |call| element::put(call, subject))),
            ("PATCH", handler(move |call| element::patch(call, subject))),
            ("DELETE", handler(move |call| element::delete(call, subject))),
        ],
    );
}

fn put_foreign(table: &mut Table, path: &str, subject: Subject) {
    table.put(
        path,
        [
            ("GET", handler(move |call| foreign::get(call, subject))),
            ("PUT", handler(move |call| foreign::put(call, subject))),
            ("PATCH", handler(move |call| foreign::patch(call, subject))),
        ],
    );
}

impl Subject {
    /// What the last segment of the path names.
    pub fn key(&self, call: &Call) -> Result<Key, Answer> {
        let segment = call.param(self.entity.name);
        match self.entity.nested_key.filter(|_| self.below.is_some() && call::uuid(segment).is_none()) {
            Some(field) => Ok(Key::Unique { field, value: segment.to_owned() }),
            None => Ok(call::key(self.entity, segment)?),
        }
    }

    /// The parent in the path; 404 when there is no such row.
    pub fn scope(&self, call: &Call) -> Result<Option<Scope>, Answer> {
        let Some((parent, field)) = self.below else { return Ok(None) };
        let row = call.catalog.select(parent.name, &call.key(parent)?, None).ok_or_else(Answer::not_found)?;
        Ok(Some(Scope { field, parent: row.id }))
    }
}
