//! Consumers: who uses the services; and groups of them.

use schema::types::{Id, Parent, Tags, UtfName};
use schema::{Check, Entity};
use serde::Deserialize;

/// A user or an application that uses the services.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "consumers", endpoint_key = "username")]
#[record(check(Check::at_least_one_of(&["custom_id", "username"])))]
#[repr(C)] // what each request asks for comes first, and stands together
pub struct Consumer {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// The unique username of the Consumer.
    #[field(unique)]
    pub username: Option<String>,
    /// The id by which another system knows the Consumer.
    #[field(unique)]
    pub custom_id: Option<String>,
    pub tags: Option<Tags>,
}

/// Consumers who share plugin configurations.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "consumer_groups", endpoint_key = "name")]
pub struct ConsumerGroup {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// The unique name of the group.
    #[field(unique)]
    pub name: UtfName,
    pub tags: Option<Tags>,
}

/// That a consumer belongs to a group.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "consumer_group_consumers", cache_key = &["consumer_group", "consumer"], no_admin_api)]
pub struct ConsumerGroupConsumer {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    #[field(parent("consumer_groups"), cascade)]
    pub consumer_group: Parent,
    #[field(parent("consumers"), cascade)]
    pub consumer: Parent,
    pub tags: Option<Tags>,
}
