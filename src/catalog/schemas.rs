//! What the schemas of rows depend on besides the entity.

use std::sync::Arc;

use schema::{Chosen, Context};

use super::row;

/// What a plugin or a vault of a name adds to its row's schema: `(entity, name)`.
pub type Choose = dyn Fn(&str, &str) -> Option<Chosen> + Send + Sync;

/// What the schemas of rows depend on besides the entity: the enabled plugins and the node's settings.
#[derive(Clone)]
pub struct Schemas {
    pub choose: Arc<Choose>,
    /// Settings that change schemas: `expressions` (flavour of the router), `shared_dict` (there is one of the user's own).
    pub features: Vec<&'static str>,
}

impl Schemas {
    /// What validation is given, at this moment.
    pub fn context(&self) -> Context<'_> {
        Context { now: row::now() as f64 / 1000.0, choose: &*self.choose, features: &self.features, transform: true }
    }
}
