//! Vaults: where the values of `{vault://...}` references come from.

use schema::record::Chosen;
use schema::types::{Id, Tags};
use schema::{Context, Entity, Record, RecordType};
use serde::Deserialize;
use serde_json::Value;

/// A source of secrets and the name by which references find it.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(
    name = "vaults",
    endpoint_key = "prefix",
    cache_key = &["prefix"],
    chooses("name", "vault '%s' is not installed", of_kind),
)]
pub struct Vault {
    #[field(auto)]
    pub id: Id,
    /// The first part of references to the vault.
    #[field(unique, not_one_of(&["env"]), matches("^[a-z][a-z%d-]-[a-z%d]+$"))]
    pub prefix: String,
    /// The kind of vault.
    pub name: String,
    pub description: Option<String>,
    /// Configuration of the vault; its schema is that of its kind.
    #[field(chosen)]
    pub config: Value,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    pub tags: Option<Tags>,
}

/// Configuration of a vault of the kind `env`: variables of the gateway's environment.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct EnvVault {
    /// Put before the names of variables.
    #[field(matches("^[%a_][%w_]*$"))]
    pub prefix: Option<String>,
}

/// The kinds of vaults that are installed.
pub const VAULTS: &[&str] = &["env"];

fn of_kind(name: &str, _: &Context) -> Option<Chosen> {
    match name {
        "env" => Some(Chosen { config: Some(EnvVault::record()), ..Chosen::default() }),
        _ => None,
    }
}

/// What a vault of that kind has beyond the general schema of vaults.
pub fn vault(name: &str) -> Option<Chosen> {
    of_kind(name, &Context::bare())
}
