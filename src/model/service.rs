//! Services: the upstream applications that routes lead to.

use schema::check::Match;
use schema::types::{Host, Id, Parent, Path, Tags, UtfName};
use schema::url::Url;
use schema::{Check, Entity, Field, FieldType, Object, Value, json};
use serde::Deserialize;
use uuid::Uuid;

/// An upstream application: where requests of its routes go.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "services", endpoint_key = "name")]
#[record(
    expand(url(), expand_url),
    check(Check::conditional("protocol", Match::one_of(&["tcp", "tls", "udp", "grpc", "grpcs"]), "path", Match::Null)),
    check(only_with_tls("client_certificate")),
    check(only_with_tls("tls_verify")),
    check(only_with_tls("tls_verify_depth")),
    check(only_with_tls("ca_certificates")),
)]
pub struct Service {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// A unique string representing a UTF-8 encoded name.
    #[field(unique)]
    pub name: Option<UtfName>,
    /// The number of retries to execute upon failure to proxy.
    #[field(default = 5, between(0, 32767))]
    pub retries: Option<i64>,
    /// A string representing a protocol, such as HTTP or HTTPS.
    #[field(default = "http", one_of(&["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"]))]
    pub protocol: String,
    pub host: Host,
    /// An integer representing a port number between 0 and 65535, inclusive.
    #[field(default = 80, between(0, 65535))]
    pub port: u16,
    pub path: Option<Path>,
    /// The timeout in milliseconds for establishing a connection to the upstream server.
    #[field(default = 60000, between(1, 2147483646))]
    pub connect_timeout: Option<u64>,
    /// The timeout in milliseconds between two successive write operations.
    #[field(default = 60000, between(1, 2147483646))]
    pub write_timeout: Option<u64>,
    /// The timeout in milliseconds between two successive read operations.
    #[field(default = 60000, between(1, 2147483646))]
    pub read_timeout: Option<u64>,
    pub tags: Option<Tags>,
    /// Certificate to be used as client certificate while TLS handshaking to the upstream server.
    #[field(parent("certificates"))]
    pub client_certificate: Option<Parent>,
    /// Whether to enable verification of upstream server TLS certificate. If not set, the global level
    /// config `proxy_ssl_verify` will be used.
    pub tls_verify: Option<bool>,
    /// Maximum depth of chain while verifying Upstream server's TLS certificate.
    #[field(default = (), between(0, 64))]
    pub tls_verify_depth: Option<i64>,
    /// Array of CA Certificate object UUIDs that are used to build the trust store while verifying upstream server's TLS
    /// certificate.
    pub ca_certificates: Option<Vec<Uuid>>,
    #[field(default = true, doc("Whether the Service is active. "))]
    pub enabled: bool,
}

fn only_with_tls(field: &'static str) -> Check {
    Check::conditional("protocol", Match::not_one_of(&["https", "tls"]), field, Match::Null)
}

fn url() -> Field {
    String::field().named("url").nullable()
}

/// `url` stands for protocol, host, port and path.
fn expand_url(value: &Value) -> Object {
    let Some(text) = value.as_str() else {
        return Object::new();
    };
    let url = Url::parse(text);
    let port: Option<u64> = url.port.and_then(|port| port.parse().ok());
    let protocol = url.scheme.unwrap_or(if port == Some(443) { "https" } else { "http" });
    let port = port.unwrap_or(if protocol == "https" { 443 } else { 80 });
    Object::from_iter([
        ("protocol".to_owned(), json!(protocol)),
        ("host".to_owned(), json!(url.host)),
        ("port".to_owned(), json!(port)),
        ("path".to_owned(), json!(url.path)),
    ])
}
