//! Upstreams and their targets: virtual hosts balanced over several addresses.

use std::collections::BTreeMap;

use schema::types::{CookieName, HeaderName, Id, Parent, Path, Tags};
use schema::{Entity, Record};
use serde::Deserialize;

/// A virtual host name whose requests are balanced over targets.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "upstreams", endpoint_key = "name")]
pub struct Upstream {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// Host name; a service with this `host` uses the upstream.
    #[field(unique)]
    pub name: String,
    #[field(default = "round-robin", one_of(&["consistent-hashing", "least-connections", "round-robin", "latency"]))]
    pub algorithm: Option<String>,
    #[field(default = "none", one_of(HASH_INPUTS))]
    pub hash_on: Option<String>,
    #[field(default = "none", one_of(HASH_INPUTS))]
    pub hash_fallback: Option<String>,
    pub hash_on_header: Option<HeaderName>,
    pub hash_fallback_header: Option<HeaderName>,
    pub hash_on_cookie: Option<CookieName>,
    #[field(default = "/")]
    pub hash_on_cookie_path: Option<Path>,
    pub hash_on_query_arg: Option<String>,
    pub hash_fallback_query_arg: Option<String>,
    pub hash_on_uri_capture: Option<String>,
    pub hash_fallback_uri_capture: Option<String>,
    /// Points on the ring of consistent-hashing.
    #[field(default = 10000, between(10, 65536))]
    pub slots: Option<u32>,
    pub healthchecks: Healthchecks,
    pub tags: Option<Tags>,
    /// Host header for requests through this upstream.
    pub host_header: Option<String>,
    #[field(parent("certificates"))]
    pub client_certificate: Option<Parent>,
    #[field(default = false)]
    pub use_srv_name: Option<bool>,
}

const HASH_INPUTS: &[&str] = &["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"];

/// Health checks of an upstream's targets.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Healthchecks {
    pub active: Active,
    pub passive: Passive,
    /// Percentage of the weight that must be healthy for the upstream to be.
    #[field(default = 0, between(0, 100))]
    pub threshold: f64,
}

/// Probes.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Active {
    #[field(default = 10, between(1, 2147483648))]
    pub concurrency: u32,
    #[field(default = "/")]
    pub http_path: Path,
    pub https_sni: Option<String>,
    #[field(default = true)]
    pub https_verify_certificate: bool,
    pub healthy: ActiveHealthy,
    pub unhealthy: ActiveUnhealthy,
    /// Seconds.
    #[field(default = 1, between(0, 65535))]
    pub timeout: f64,
    #[field(default = "http", one_of(CHECK_TYPES))]
    pub r#type: String,
    pub headers: Option<BTreeMap<String, Vec<String>>>,
}

const CHECK_TYPES: &[&str] = &["tcp", "http", "https", "grpc", "grpcs"];

/// When a probe counts as a success.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct ActiveHealthy {
    #[field(default = [200, 302], elements(|e| e.between(100, 999)))]
    pub http_statuses: Vec<u16>,
    /// Seconds between probes of healthy targets; 0 turns them off.
    #[field(default = 0, between(0, 65535))]
    pub interval: f64,
    #[field(default = 0, between(0, 255))]
    pub successes: u32,
}

/// When a probe counts as a failure.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct ActiveUnhealthy {
    /// Seconds between probes of unhealthy targets; 0 turns them off.
    #[field(default = 0, between(0, 65535))]
    pub interval: f64,
    #[field(default = [429, 404, 500, 501, 502, 503, 504, 505], elements(|e| e.between(100, 999)))]
    pub http_statuses: Vec<u16>,
    #[field(default = 0, between(0, 255))]
    pub tcp_failures: u32,
    #[field(default = 0, between(0, 255))]
    pub timeouts: u32,
    #[field(default = 0, between(0, 255))]
    pub http_failures: u32,
}

/// Conclusions from proxied traffic.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Passive {
    pub unhealthy: PassiveUnhealthy,
    pub healthy: PassiveHealthy,
    #[field(default = "http", one_of(CHECK_TYPES))]
    pub r#type: String,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct PassiveUnhealthy {
    #[field(default = 0, between(0, 255))]
    pub timeouts: u32,
    #[field(default = 0, between(0, 255))]
    pub tcp_failures: u32,
    #[field(default = [429, 500, 503], elements(|e| e.between(100, 999)))]
    pub http_statuses: Vec<u16>,
    #[field(default = 0, between(0, 255))]
    pub http_failures: u32,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct PassiveHealthy {
    #[field(default = [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308], elements(|e| e.between(100, 999)))]
    pub http_statuses: Vec<u16>,
    #[field(default = 0, between(0, 255))]
    pub successes: u32,
}

/// One address of an upstream.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "targets", endpoint_key = "target", cache_key = &["upstream", "target"])]
pub struct Target {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: f64,
    #[field(auto, timestamp)]
    pub updated_at: f64,
    #[field(parent("upstreams"), cascade)]
    pub upstream: Parent,
    /// `host:port`; the port is 8000 when absent.
    pub target: String,
    #[field(default = 100, between(0, 65535))]
    pub weight: Option<u32>,
    pub tags: Option<Tags>,
}
