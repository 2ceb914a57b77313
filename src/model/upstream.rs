//! Upstreams: virtual hosts balanced over several addresses.

use std::collections::BTreeMap;

use schema::check::Match;
use schema::host::{HostKind, HostPort};
use schema::types::{CookieName, HeaderName, HostWithOptionalPort, Id, Parent, Path, Sni, Tags};
use schema::{Check, Entity, Field, FieldType, Object, Record, Value, json};
use serde::Deserialize;

/// A virtual host name whose requests are balanced over targets.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "upstreams", endpoint_key = "name")]
#[record(
    expand(text("algorithm"), expand_algorithm),
    expand(text("hash_on"), expand_hash_on),
    check(needs("hash_on", "^header$", "hash_on_header")),
    check(needs("hash_fallback", "^header$", "hash_fallback_header")),
    check(needs("hash_on", "^cookie$", "hash_on_cookie")),
    check(needs("hash_fallback", "^cookie$", "hash_on_cookie")),
    check(falls_back("^none$", &["none"])),
    check(falls_back("^cookie$", &["none"])),
    check(falls_back("^consumer$", &["none", "ip", "header", "cookie", "path", "query_arg", "uri_capture"])),
    check(falls_back("^ip$", &["none", "consumer", "header", "cookie", "path", "query_arg", "uri_capture"])),
    check(falls_back("^path$", &["none", "consumer", "header", "cookie", "query_arg", "ip", "uri_capture"])),
    check(Check::Distinct(vec!["hash_on_header", "hash_fallback_header"])),
    check(needs("hash_on", "^query_arg$", "hash_on_query_arg")),
    check(needs("hash_fallback", "^query_arg$", "hash_fallback_query_arg")),
    check(Check::Distinct(vec!["hash_on_query_arg", "hash_fallback_query_arg"])),
    check(needs("hash_on", "^uri_capture$", "hash_on_uri_capture")),
    check(needs("hash_fallback", "^uri_capture$", "hash_fallback_uri_capture")),
    check(Check::Distinct(vec!["hash_on_uri_capture", "hash_fallback_uri_capture"])),
)]
pub struct Upstream {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// This is a hostname, which must be equal to the host of a Service.
    #[field(unique, check("name", check_name))]
    pub name: String,
    /// Which load balancing algorithm to use.
    #[field(default = "round-robin", one_of(&["consistent-hashing", "least-connections", "round-robin", "latency"]))]
    pub algorithm: Option<String>,
    /// What to use as hashing input.
    #[field(default = "none", one_of(HASH_INPUTS))]
    pub hash_on: Option<String>,
    /// What to use as hashing input when there is none of the primary kind.
    #[field(default = "none", one_of(HASH_INPUTS))]
    pub hash_fallback: Option<String>,
    pub hash_on_header: Option<HeaderName>,
    pub hash_fallback_header: Option<HeaderName>,
    /// The cookie name to take the value from as hash input.
    pub hash_on_cookie: Option<CookieName>,
    #[field(default = "/")]
    pub hash_on_cookie_path: Option<Path>,
    /// The query argument to take the value from as hash input.
    pub hash_on_query_arg: Option<String>,
    /// The query argument to take the value from as fallback hash input.
    pub hash_fallback_query_arg: Option<String>,
    /// The capture of the route's path to take the value from as hash input.
    pub hash_on_uri_capture: Option<String>,
    /// The capture of the route's path to take the value from as fallback hash input.
    pub hash_fallback_uri_capture: Option<String>,
    /// The number of slots in the load balancer algorithm.
    #[field(default = 10000, between(10, 65536))]
    pub slots: Option<u32>,
    /// The array of healthchecks.
    pub healthchecks: Healthchecks,
    pub tags: Option<Tags>,
    pub host_header: Option<HostWithOptionalPort>,
    /// If set, the certificate to be used as client certificate while TLS handshaking to the upstream server.
    #[field(parent("certificates"))]
    pub client_certificate: Option<Parent>,
    /// If set, the balancer will use SRV hostname.
    #[field(default = false)]
    pub use_srv_name: Option<bool>,
}

const HASH_INPUTS: &[&str] = &["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"];

fn text(name: &'static str) -> Field {
    String::field().named(name).nullable()
}

/// An algorithm that does not hash clears what to hash.
fn expand_algorithm(value: &Value) -> Object {
    let mut fields = Object::from_iter([("algorithm".to_owned(), value.clone())]);
    if matches!(value.as_str(), Some("least-connections" | "latency")) {
        fields.insert("hash_on".to_owned(), Value::Null);
    }
    fields
}

/// What to hash decides the algorithm.
fn expand_hash_on(value: &Value) -> Object {
    let fields = match value.as_str() {
        None => return Object::from_iter([("hash_on".to_owned(), json!("none"))]),
        Some("none") => [("hash_on".to_owned(), value.clone()), ("algorithm".to_owned(), json!("round-robin"))],
        Some(_) => [("hash_on".to_owned(), value.clone()), ("algorithm".to_owned(), json!("consistent-hashing"))],
    };
    fields.into_iter().collect()
}

fn needs(when: &'static str, is: &'static str, then: &'static str) -> Check {
    Check::conditional(when, Match::matches(is), then, Match::Required)
}

fn falls_back(is: &'static str, to: &[&'static str]) -> Check {
    Check::conditional("hash_on", Match::matches(is), "hash_fallback", Match::one_of(to))
}

fn check_name(value: &Value) -> Result<(), String> {
    let name = value.as_str().unwrap_or_default();
    let why = match HostPort::parse(name) {
        Err(_) => "must be a valid hostname",
        Ok(HostPort { kind: HostKind::V4 | HostKind::V6, .. }) => "no ip addresses allowed",
        Ok(HostPort { port: Some(_), .. }) => "no port allowed",
        Ok(_) => return Ok(()),
    };
    Err(format!("Invalid name ('{name}'); {why}"))
}

/// Health checks of an upstream's targets.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Healthchecks {
    pub active: Active,
    pub passive: Passive,
    /// Percentage of the weight that must be healthy for the upstream to be.
    #[field(optional, default = 0, between(0, 100))]
    pub threshold: f64,
}

/// Probes.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Active {
    /// Number of targets probed at the same time.
    #[field(optional, default = 10, between(1, 2147483648))]
    pub concurrency: u32,
    #[field(optional, default = "/")]
    pub http_path: Path,
    pub https_sni: Option<Sni>,
    #[field(default = true)]
    pub https_verify_certificate: bool,
    pub healthy: ActiveHealthy,
    pub unhealthy: ActiveUnhealthy,
    /// Seconds.
    #[field(optional, default = 1, between(0, 65535))]
    pub timeout: f64,
    #[field(optional, default = "http", one_of(CHECK_TYPES))]
    pub r#type: String,
    /// A map of header names to arrays of header values.
    #[field(keys(|_| HeaderName::field()))]
    pub headers: Option<BTreeMap<String, Vec<String>>>,
}

const CHECK_TYPES: &[&str] = &["tcp", "http", "https", "grpc", "grpcs"];

/// When a probe counts as a success.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct ActiveHealthy {
    #[field(optional, default = [200, 302], elements(status))]
    pub http_statuses: Vec<u16>,
    /// Seconds between probes of healthy targets; 0 turns them off.
    #[field(optional, default = 0, between(0, 65535))]
    pub interval: f64,
    #[field(optional, default = 0, between(0, 255))]
    pub successes: u32,
}

/// When a probe counts as a failure.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct ActiveUnhealthy {
    /// Seconds between probes of unhealthy targets; 0 turns them off.
    #[field(optional, default = 0, between(0, 65535))]
    pub interval: f64,
    #[field(optional, default = [429, 404, 500, 501, 502, 503, 504, 505], elements(status))]
    pub http_statuses: Vec<u16>,
    #[field(optional, default = 0, between(0, 255))]
    pub tcp_failures: u32,
    #[field(optional, default = 0, between(0, 255))]
    pub timeouts: u32,
    #[field(optional, default = 0, between(0, 255))]
    pub http_failures: u32,
}

/// Conclusions from proxied traffic.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct Passive {
    pub unhealthy: PassiveUnhealthy,
    pub healthy: PassiveHealthy,
    #[field(optional, default = "http", one_of(CHECK_TYPES))]
    pub r#type: String,
}

/// When proxied requests count as failures.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct PassiveUnhealthy {
    #[field(optional, default = 0, between(0, 255))]
    pub timeouts: u32,
    #[field(optional, default = 0, between(0, 255))]
    pub tcp_failures: u32,
    #[field(optional, default = [429, 500, 503], elements(status))]
    pub http_statuses: Vec<u16>,
    #[field(optional, default = 0, between(0, 255))]
    pub http_failures: u32,
}

/// When proxied requests count as successes.
#[derive(Clone, Debug, Deserialize, Record)]
pub struct PassiveHealthy {
    #[field(optional, default = HEALTHY_STATUSES, elements(status))]
    pub http_statuses: Vec<u16>,
    #[field(optional, default = 0, between(0, 255))]
    pub successes: u32,
}

const HEALTHY_STATUSES: [u16; 19] = [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308];

fn status(element: Field) -> Field {
    element.between(100, 999)
}
