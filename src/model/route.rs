//! Routes: which requests go to which service.

use std::collections::BTreeMap;

use schema::Entity;
use schema::types::{Id, Parent, Set, Tags, UtfName};
use serde::Deserialize;

/// A rule by which requests are matched to a service.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "routes", endpoint_key = "name")]
pub struct Route {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    #[field(unique)]
    pub name: Option<UtfName>,
    #[field(default = ["http", "https"])]
    pub protocols: Set<String>,
    #[field(default = 426, one_of(&[426, 301, 302, 307, 308]))]
    pub https_redirect_status_code: u16,
    #[field(default = true)]
    pub strip_path: bool,
    #[field(default = false)]
    pub preserve_host: bool,
    #[field(default = true)]
    pub request_buffering: bool,
    #[field(default = true)]
    pub response_buffering: bool,
    pub tags: Option<Tags>,
    #[field(parent("services"))]
    pub service: Option<Parent>,
    pub snis: Option<Set<String>>,
    pub sources: Option<Set<Endpoint>>,
    pub destinations: Option<Set<Endpoint>>,
    pub methods: Option<Set<String>>,
    pub hosts: Option<Vec<String>>,
    pub paths: Option<Vec<String>>,
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    #[field(default = 0)]
    pub regex_priority: Option<i64>,
    #[field(default = "v0", one_of(&["v0", "v1"]))]
    pub path_handling: Option<String>,
    /// An expression, with the expressions flavour of the router.
    pub expression: Option<String>,
    /// Priority of the expression.
    #[field(default = 0, between(0, 70368744177663))]
    pub priority: u64,
}

/// An address, a port or both, of one end of a connection.
#[derive(Clone, Debug, Deserialize, PartialEq, schema::Record)]
pub struct Endpoint {
    pub ip: Option<String>,
    #[field(between(0, 65535))]
    pub port: Option<u16>,
}
