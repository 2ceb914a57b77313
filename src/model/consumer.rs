//! Consumers: who uses the services.

use schema::types::{Id, Tags};
use schema::{Check, Entity};
use serde::Deserialize;

/// A user or an application that uses the services.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "consumers", endpoint_key = "username")]
#[record(check(Check::at_least_one_of(&["custom_id", "username"])))]
pub struct Consumer {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    #[field(unique)]
    pub username: Option<String>,
    /// The id by which another system knows the consumer.
    #[field(unique)]
    pub custom_id: Option<String>,
    pub tags: Option<Tags>,
}
