//! The one table of settings: name, type, default, doc. Everything that reads a setting reads it from [`Settings`].

use std::path::PathBuf;

/// The settings of a node, as `troop.conf`, `KONG_*` and `TROOP_*` variables and the command line make them.
#[derive(Clone, Debug)]
pub struct Settings {
    pub prefix: PathBuf,
    pub node_id: Option<uuid::Uuid>,
    pub proxy_listen: Vec<Listen>,
    pub admin_listen: Vec<Listen>,
    pub status_listen: Vec<Listen>,
    pub workers: usize,
}

/// One address of a listener and its flags: `0.0.0.0:8443 http2 ssl reuseport backlog=16384`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: std::net::SocketAddr,
    pub ssl: bool,
    pub http2: bool,
    pub proxy_protocol: bool,
    pub reuseport: bool,
    pub backlog: u32,
}
