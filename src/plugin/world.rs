//! What a request may look up: consumers and credentials, in the configuration it started with.

use std::any::Any;
use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::Consumer;

/// The configuration as one request sees it, from its start to its end. The snapshot implements it.
pub trait World: Send + Sync {
    /// The implementation behind the trait.
    fn as_any(&self) -> &dyn Any;

    /// The row of `entity` whose unique `field` has this value, as its typed struct.
    fn find_any(&self, entity: &'static str, field: &'static str, value: &str) -> Option<Arc<dyn Any + Send + Sync>>;

    /// The row of `entity` with this id, as its typed struct.
    fn get_any(&self, entity: &'static str, id: Uuid) -> Option<Arc<dyn Any + Send + Sync>>;

    /// The rows of `entity` whose foreign key `field` is `parent`, as their typed structs.
    fn children_any(&self, entity: &'static str, field: &'static str, parent: Uuid) -> Vec<Arc<dyn Any + Send + Sync>>;

    /// The row of `entity` with this id, as the Admin API shows it.
    fn shown(&self, entity: &'static str, id: Uuid) -> Option<schema::Object>;

    /// The row of `entity` with this id, as log records hold it: without what is null, with the id of its workspace.
    fn logged(&self, entity: &'static str, id: Uuid) -> Option<&RawValue>;
}

/// A configuration without anything: what an exchange holds between two requests.
pub struct Nothing;

impl World for Nothing {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn find_any(&self, _: &'static str, _: &'static str, _: &str) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    fn get_any(&self, _: &'static str, _: Uuid) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    fn children_any(&self, _: &'static str, _: &'static str, _: Uuid) -> Vec<Arc<dyn Any + Send + Sync>> {
        Vec::new()
    }

    fn shown(&self, _: &'static str, _: Uuid) -> Option<schema::Object> {
        None
    }

    fn logged(&self, _: &'static str, _: Uuid) -> Option<&RawValue> {
        None
    }
}

impl dyn World {
    /// The row whose unique `field` has this value. `T` is the entity's struct.
    pub fn find<T: schema::EntityType + Send + Sync + 'static>(&self, field: &'static str, value: &str) -> Option<Arc<T>> {
        self.find_any(T::entity().name, field, value)?.downcast().ok()
    }

    pub fn get<T: schema::EntityType + Send + Sync + 'static>(&self, id: Uuid) -> Option<Arc<T>> {
        self.get_any(T::entity().name, id)?.downcast().ok()
    }

    pub fn children<T: schema::EntityType + Send + Sync + 'static>(&self, field: &'static str, parent: Uuid) -> Vec<Arc<T>> {
        let rows = self.children_any(T::entity().name, field, parent);
        rows.into_iter().filter_map(|row| row.downcast().ok()).collect()
    }

    /// A consumer by id or username, as `config.anonymous` names it.
    pub fn consumer(&self, id_or_username: &str) -> Option<Arc<Consumer>> {
        match Uuid::try_parse(id_or_username) {
            Ok(id) => self.get(id).or_else(|| self.find("username", id_or_username)),
            Err(_) => self.find("username", id_or_username),
        }
    }
}
