//! Services: the upstream applications that routes lead to.

use schema::Entity;
use schema::types::{Host, Id, Parent, Path, Tags, UtfName};
use serde::Deserialize;
use uuid::Uuid;

/// An upstream application: where requests of its routes go.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "services", endpoint_key = "name")]
pub struct Service {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// Name of the service.
    #[field(unique)]
    pub name: Option<UtfName>,
    /// How many further tries a failed request gets.
    #[field(default = 5, between(0, 32767))]
    pub retries: Option<i64>,
    /// Protocol towards the upstream.
    #[field(default = "http", one_of(&["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"]))]
    pub protocol: String,
    /// Host name or address of the upstream, or the name of an upstream entity.
    pub host: Host,
    /// Port of the upstream.
    #[field(default = 80, between(0, 65535))]
    pub port: u16,
    /// Path put before that of the request.
    pub path: Option<Path>,
    /// Milliseconds to establish a connection.
    #[field(default = 60000, between(1, 2147483646))]
    pub connect_timeout: Option<u64>,
    /// Milliseconds between two successive writes.
    #[field(default = 60000, between(1, 2147483646))]
    pub write_timeout: Option<u64>,
    /// Milliseconds between two successive reads.
    #[field(default = 60000, between(1, 2147483646))]
    pub read_timeout: Option<u64>,
    pub tags: Option<Tags>,
    /// Certificate shown to the upstream.
    #[field(parent("certificates"))]
    pub client_certificate: Option<Parent>,
    /// Whether the upstream's certificate is verified; the gateway's setting when null.
    pub tls_verify: Option<bool>,
    /// Greatest depth of the upstream's certificate chain.
    #[field(between(0, 64))]
    pub tls_verify_depth: Option<i64>,
    /// Authorities that the upstream's certificate may come from.
    pub ca_certificates: Option<Vec<Uuid>>,
    /// A disabled service's routes are not built into the router.
    #[field(default = true)]
    pub enabled: bool,
}
