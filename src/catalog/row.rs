//! One row of an entity.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use schema::{EntitySchema, EntityType, Object};
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A row. The body is JSON text, which is small to keep, ready to be served, and what disk and peers hold too; the typed
/// struct is made when it is first asked for.
pub struct Row {
    pub schema: &'static EntitySchema,
    pub id: Uuid,
    body: Box<str>,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Row {
    pub fn new(schema: &'static EntitySchema, id: Uuid, body: &Object) -> Self {
        let body = serde_json::to_string(body).expect("JSON values have a text").into_boxed_str();
        Self { schema, id, body, typed: OnceLock::new() }
    }

    /// A row whose body was read from disk.
    pub fn from_text(schema: &'static EntitySchema, id: Uuid, body: Box<str>) -> Self {
        Self { schema, id, body, typed: OnceLock::new() }
    }

    /// The body as JSON text, all fields present.
    pub fn text(&self) -> &str {
        &self.body
    }

    /// The body as a table.
    pub fn object(&self) -> Object {
        serde_json::from_str(&self.body).expect("a row's body was written by this program")
    }

    /// The row as its entity's struct; `None` when it does not fit, which validation rules out.
    pub fn typed<T: EntityType + DeserializeOwned + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        if let Some(typed) = self.typed.get() {
            return typed.clone().downcast().ok();
        }
        let typed: Arc<T> = Arc::new(serde_json::from_str(&self.body).ok()?);
        let _ = self.typed.set(typed.clone());
        Some(typed)
    }
}
