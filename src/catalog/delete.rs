//! Deletion: what goes with a row, and what forbids it.

use std::collections::HashSet;

use schema::{EntitySchema, Kind, OnDelete, Value};
use uuid::Uuid;

use super::plan::Draft;
use super::{Catalog, WriteError};
use crate::model::ENTITIES;

impl Draft<'_> {
    /// Removes a row with all that hangs on it, or says what still refers to it.
    pub fn delete(&mut self, entity: &'static EntitySchema, id: Uuid) -> Result<(), WriteError> {
        check_lists(&self.catalog, entity, id)?;
        let mut doomed = vec![(entity, id)];
        let mut names = HashSet::from([(entity.name, id)]);
        let mut at = 0;
        while let Some(&(parent, id)) = doomed.get(at) {
            at += 1;
            for (child, field, _) in children(parent).filter(|(.., on_delete)| *on_delete == OnDelete::Cascade) {
                for row in self.catalog.children(child.name, field, id) {
                    if names.insert((child.name, row.id)) {
                        doomed.push((child, row.id));
                    }
                }
            }
        }
        for &(parent, id) in &doomed {
            for (child, field, _) in children(parent).filter(|(.., on_delete)| *on_delete == OnDelete::Restrict) {
                if self.catalog.children(child.name, field, id).any(|row| !names.contains(&(child.name, row.id))) {
                    return Err(WriteError::still_referenced(child.name, parent.name));
                }
            }
        }
        doomed.into_iter().rev().for_each(|(entity, id)| self.remove(entity, id));
        Ok(())
    }
}

/// The foreign keys that refer to an entity: child, field, what a deletion does.
fn children(parent: &EntitySchema) -> impl Iterator<Item = (&'static EntitySchema, &'static str, OnDelete)> {
    ENTITIES.iter().flat_map(move |child| {
        child.record.fields.iter().filter_map(move |field| match &field.kind {
            // SNIs are declared as holding their certificate, and deleting the certificate takes them along all the same.
            Kind::Foreign { to, .. } if *to == parent.name && child.name == "snis" => Some((*child, field.name, OnDelete::Cascade)),
            Kind::Foreign { to, on_delete } if *to == parent.name => Some((*child, field.name, *on_delete)),
            _ => None,
        })
    })
}

/// Authorities are named in lists, not by foreign keys: of services, and of plugins' configurations.
fn check_lists(catalog: &Catalog, entity: &EntitySchema, id: Uuid) -> Result<(), WriteError> {
    if entity.name != "ca_certificates" {
        return Ok(());
    }
    let text = id.to_string();
    for other in ["services", "plugins"] {
        for row in catalog.rows(other).filter(|row| row.text().contains(&text)) {
            let body = row.object();
            let config = body.get("config").and_then(Value::as_object);
            let lists = [body.get("ca_certificates"), config.and_then(|config| config.get("ca_certificates"))];
            let mut named = lists.into_iter().flatten().filter_map(Value::as_array).flatten();
            if named.any(|authority| authority.as_str() == Some(&text)) {
                return Err(WriteError::listed_by("ca certificate", id, other, row.id));
            }
        }
    }
    Ok(())
}
