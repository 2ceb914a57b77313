//! One call of the Admin API, as endpoints see it.

use std::sync::Arc;

use actix_web::http::Method;
use parking_lot::Mutex;
use schema::EntitySchema;
use serde_json::Value;

use crate::actors::replication::{Receipt, Wish};
use crate::admin::body::Body;
use crate::admin::context::Context;
use crate::admin::query::Query;
use crate::admin::table::Params;
use crate::catalog::{Catalog, Change, Key, WriteError, Written};

/// A call: what was asked, and the node that is asked.
pub struct Call {
    pub context: Arc<Context>,
    /// The configuration when the call came; it does not change under the call.
    pub catalog: Arc<Catalog>,
    pub method: Method,
    /// The path as it came.
    pub path: String,
    pub params: Params,
    pub query: Query,
    pub body: Body,
    pub writing: Arc<Writing>,
}

/// What a client wishes of the changes that its call makes, and what became of them. Only for nodes of a cluster.
#[derive(Default)]
pub struct Writing {
    pub wish: Wish,
    /// Of the last change.
    pub receipt: Mutex<Option<Receipt>>,
}

impl Call {
    /// Changes the configuration. When the answer comes the change is durable and in effect.
    pub async fn write(&self, change: Change) -> Result<Written, WriteError> {
        let Some(cluster) = &self.context.cluster else { return self.context.write(change).await };
        let (written, receipt) = cluster.write(change, self.writing.wish).await?;
        if let Some(receipt) = receipt {
            self.note(receipt);
        }
        Ok(written)
    }

    /// Takes note of what became of a change, for the answer's header fields.
    pub fn note(&self, receipt: Receipt) {
        *self.writing.receipt.lock() = Some(receipt);
    }

    /// The decoded segment that stands in the place of `{name}`.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// Puts another value in the place of a segment.
    pub fn set_param(&mut self, name: &str, value: String) {
        self.params.retain(|(n, _)| n != name);
        self.params.push((name.to_owned(), value));
    }

    /// The body's member of this name, whatever the body's kind.
    pub fn member(&self, name: &str) -> Option<&Value> {
        match &self.body {
            Body::Json(body) => body.get(name),
            Body::Form(form) => form.get(name),
            Body::Absent | Body::Yaml(_) => None,
        }
    }

    /// What the segment `{entity}` names: a row by its id or by its endpoint key.
    pub fn key(&self, entity: &EntitySchema) -> Result<Key, WriteError> {
        key(entity, self.param(entity.name))
    }
}

/// What a segment names: a uuid is an id, everything else the value of the endpoint key.
pub fn key(entity: &EntitySchema, segment: &str) -> Result<Key, WriteError> {
    if let Some(id) = uuid(segment) {
        return Ok(Key::Id(id));
    }
    match entity.endpoint_key {
        Some(field) => {
            let key = Key::Unique { field, value: segment.to_owned() };
            key.check(entity).map(|()| key)
        }
        None => Err(WriteError::invalid_primary_key()),
    }
}

/// A uuid in its one form with hyphens.
pub fn uuid(text: &str) -> Option<uuid::Uuid> {
    (text.len() == 36).then(|| uuid::Uuid::try_parse(text).ok()).flatten()
}
