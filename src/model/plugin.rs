//! Plugins: what runs on requests, and for which of them.

use schema::Entity;
use schema::types::{Id, Parent, Set, Tags, UtfName};
use serde::Deserialize;
use serde_json::Value;

/// A configured plugin and its scope.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(
    name = "plugins",
    endpoint_key = "instance_name",
    cache_key = &["name", "route", "service", "consumer", "consumer_group"],
    installed("name", "plugin '%s' not enabled; add it to the 'plugins' configuration property"),
)]
pub struct PluginRow {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// Name of the plugin.
    pub name: String,
    /// A name for this configuration.
    #[field(unique)]
    pub instance_name: Option<UtfName>,
    #[field(parent("routes"), cascade)]
    pub route: Option<Parent>,
    #[field(parent("services"), cascade)]
    pub service: Option<Parent>,
    #[field(parent("consumers"), cascade)]
    pub consumer: Option<Parent>,
    #[field(parent("consumer_groups"), cascade, sparse)]
    pub consumer_group: Option<Parent>,
    /// Configuration of the plugin; its schema is the plugin's.
    #[field(chosen)]
    pub config: Value,
    /// Protocols of requests for which the plugin runs.
    pub protocols: Set<String>,
    /// A disabled plugin does not run.
    #[field(default = true)]
    pub enabled: bool,
    pub tags: Option<Tags>,
}
