//! The entities and nothing else, one file each. [`ENTITIES`] is the one list of them.

mod certificate;
mod consumer;
mod credential;
pub mod expression;
mod key;
pub mod pem;
mod plugin;
pub mod public_key;
mod regex;
mod route;
mod service;
mod target;
mod upstream;
mod vault;

use schema::{EntitySchema, EntityType};

pub use certificate::{CaCertificate, Certificate, Sni};
pub use consumer::{Consumer, ConsumerGroup, ConsumerGroupConsumer};
pub use credential::{Acl, BasicAuthCredential, HmacAuthCredential, JwtSecret, KeyAuthCredential, password_hash};
pub use key::{Key, KeySet, PemPair};
pub use plugin::PluginRow;
pub use regex::pattern_error;
pub use route::{EXPRESSIONS, Endpoint, Route, TRADITIONAL};
pub use service::Service;
pub use target::Target;
pub use upstream::{Active, ActiveHealthy, ActiveUnhealthy, Healthchecks, Passive, PassiveHealthy, PassiveUnhealthy, Upstream};
pub use vault::{EnvVault, VAULTS, Vault, vault};

/// Every entity, parents before children.
pub static ENTITIES: std::sync::LazyLock<Vec<&'static EntitySchema>> = std::sync::LazyLock::new(|| {
    vec![
        Certificate::entity(),
        Sni::entity(),
        CaCertificate::entity(),
        Service::entity(),
        Route::entity(),
        Consumer::entity(),
        ConsumerGroup::entity(),
        ConsumerGroupConsumer::entity(),
        PluginRow::entity(),
        Upstream::entity(),
        Target::entity(),
        Vault::entity(),
        KeySet::entity(),
        Key::entity(),
        KeyAuthCredential::entity(),
        BasicAuthCredential::entity(),
        HmacAuthCredential::entity(),
        JwtSecret::entity(),
        Acl::entity(),
    ]
});

/// The entity of that collection name (`services`).
pub fn entity(name: &str) -> Option<&'static EntitySchema> {
    ENTITIES.iter().copied().find(|e| e.name == name)
}

/// Id of the one workspace, as Kong's logs and metrics show it.
pub const WORKSPACE_ID: &str = "0dc6f45b-8f8d-40d2-a504-473544ee190b";
/// Name of the one workspace.
pub const WORKSPACE: &str = "default";

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
