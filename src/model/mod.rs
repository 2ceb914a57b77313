//! The entities and nothing else, one file each. [`ENTITIES`] is the one list of them.

mod consumer;
mod plugin;
mod route;
mod service;
mod upstream;

use schema::{EntitySchema, EntityType};

pub use consumer::Consumer;
pub use plugin::PluginRow;
pub use route::{Endpoint, Route};
pub use service::Service;
pub use upstream::{Healthchecks, Target, Upstream};

/// Every entity, parents before children.
pub static ENTITIES: std::sync::LazyLock<Vec<&'static EntitySchema>> = std::sync::LazyLock::new(|| {
    vec![Service::entity(), Route::entity(), Consumer::entity(), PluginRow::entity(), Upstream::entity(), Target::entity()]
});

/// The entity of that collection name (`services`).
pub fn entity(name: &str) -> Option<&'static EntitySchema> {
    ENTITIES.iter().copied().find(|e| e.name == name)
}

/// Id of the one workspace, as Kong's logs and metrics show it.
pub const WORKSPACE_ID: &str = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
/// Name of the one workspace.
pub const WORKSPACE: &str = "default";
