//! The contract that every plugin fulfils.
//!
//! A plugin is a type in one file of `src/plugins/`: a configuration declared by `#[derive(Record)]`, a name, a priority,
//! the phases it takes part in, and a hook for each of them. Everything else (schema, validation, documentation,
//! registration in the Admin API) is derived.
//!
//! | module | what it holds |
//! |---|---|
//! | [`exchange`] | one request and its answer, as plugins see it |
//! | [`reply`] | an answer of the gateway itself |
//! | [`instance`] | a configured plugin behind one object-safe face |
//! | [`panics`] | what becomes of a plugin that panics |
//! | [`world`] | what a request may look up: consumers, credentials |
//! | [`auth`] | what all authentication plugins share |
//! | [`query`] | arguments of queries and forms |
//! | [`form`] | bodies with named members |
//! | [`pattern`] | regular expressions of configurations |
//! | [`header_credentials`] | credentials in `Authorization` |
//! | [`token`] | JSON Web Tokens |
//! | [`cache`] | answers of upstreams that are kept |
//! | [`counters`] | counters of fixed windows, shared by all workers |
//! | [`custom_fields`] | members that a log plugin adds to its records |
//! | [`files`] | files that log records are appended to |
//! | [`health`] | the health of upstreams' targets, for metrics |
//! | [`limits`] | what the plugins that limit have in common |
//! | [`metrics`] | what a node counts |
//! | [`queue`] | log records on their way to a sink |
//! | [`record`] | the log record of a request |
//! | [`template`] | `$(headers.x)` in configuration values |
//! | [`quota`] | limits that the nodes of a cluster share |
//! | [`redis`] | how a plugin's configuration names a Redis, and the handle by which plugins ask it |
//! | [`redis_counters`] | counters of fixed windows in a Redis |

pub mod auth;
pub mod cache;
pub mod counters;
pub mod custom_fields;
pub mod exchange;
pub mod files;
pub mod form;
pub mod header_credentials;
pub mod health;
pub mod instance;
pub mod limits;
pub mod metrics;
pub mod panics;
pub mod pattern;
pub mod query;
pub mod queue;
pub mod quota;
pub mod record;
pub mod redis;
pub mod redis_counters;
pub mod reply;
pub mod template;
#[cfg(test)]
pub mod testing;
pub mod token;
pub mod world;

use std::sync::Arc;

use bytes::Bytes;
use schema::{Check, RecordType, Violations};
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub use exchange::Exchange;
pub use instance::{Descriptor, Instance};
pub use reply::Reply;
pub use world::World;

/// `Ok` goes on; `Err` ends the request with this answer (header filters, body filters and log still run).
pub type Flow = Result<(), Reply>;

/// A plugin. Hooks that are not named in [`Plugin::PHASES`] are never called.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// Name in the Admin API: `key-auth`.
    const NAME: &'static str;
    /// Plugins of a phase run in descending order of priority.
    const PRIORITY: i32;
    const PHASES: Phases;
    /// Which foreign keys a plugin row of this name may set.
    const SCOPES: Scopes = Scopes::ALL;
    /// Whether a body filter changes the length of every body; a filter that changes some calls `Response::body_will_change`.
    const CHANGES_BODY: bool = false;
    /// What `protocols` of a plugin row is when nothing else is said.
    const PROTOCOLS: &'static [&'static str] = HTTP_PROTOCOLS;
    /// What `protocols` of a plugin row may hold.
    const ALLOWED_PROTOCOLS: &'static [&'static str] = Self::PROTOCOLS;

    type Config: RecordType + DeserializeOwned;

    /// Checks over the whole plugin row (`config.policy`, ...).
    fn checks() -> Vec<Check> {
        Vec::new()
    }

    /// Builds what runs from what was configured. Called once a change of configuration, never in a request.
    fn new(config: Self::Config, env: &Env) -> Result<Self, Violations>;

    /// Before routing; plugins with global scope only.
    #[allow(async_fn_in_trait, reason = "connections are served on one thread: no Send is wanted")]
    async fn rewrite(&self, _: &mut Exchange) -> Flow {
        Ok(())
    }

    /// After routing, before the upstream is contacted.
    #[allow(async_fn_in_trait, reason = "connections are served on one thread: no Send is wanted")]
    async fn access(&self, _: &mut Exchange) -> Flow {
        Ok(())
    }

    /// When the head of the answer is known; may change it.
    fn header_filter(&self, _: &mut Exchange) {}

    /// For each chunk of the answer's body; `last` comes once, with what is left or an empty chunk. The chunk it leaves is sent.
    fn body_filter(&self, _: &mut Exchange, _chunk: &mut Bytes, _last: bool) {}

    /// After the answer was sent.
    fn log(&self, _: &mut Exchange) {}
}

pub const HTTP_PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https"];
/// HTTP and streams of bytes.
pub const ALL_PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];

/// What a plugin instance is told when it is built.
pub struct Env {
    /// Id of the plugin row.
    pub id: Uuid,
    pub instance_name: Option<String>,
    pub route: Option<Uuid>,
    pub service: Option<Uuid>,
    pub consumer: Option<Uuid>,
    pub consumer_group: Option<Uuid>,
    /// Ways to what changes over time.
    pub handles: Arc<Handles>,
}

/// The node on which a plugin runs.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub id: Uuid,
    pub hostname: String,
}

/// Handles to what actors own, each defined in a file of `plugin/` and implemented in `actors/`.
#[derive(Default)]
pub struct Handles {
    pub counters: Arc<counters::Counters>,
    pub metrics: Arc<metrics::Metrics>,
    pub files: files::Files,
    pub cache: Arc<cache::Cache>,
    /// Set once the cache's owner is there.
    pub cache_owner: std::sync::OnceLock<Arc<dyn cache::Owner>>,
    /// Set once the upstreams are there.
    pub health: std::sync::OnceLock<Arc<dyn health::Health>>,
    pub node: Node,
    /// Set once the node is one of a cluster.
    pub quota: std::sync::OnceLock<Arc<dyn quota::Quota>>,
    /// Set once connections can be made.
    pub redis: std::sync::OnceLock<Arc<dyn redis::Redis>>,
}

/// A set of phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases(u8);

impl Phases {
    pub const REWRITE: Self = Self(1);
    pub const ACCESS: Self = Self(2);
    pub const HEADER_FILTER: Self = Self(4);
    pub const BODY_FILTER: Self = Self(8);
    pub const LOG: Self = Self(16);

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn has(self, phase: Self) -> bool {
        self.0 & phase.0 != 0
    }
}

/// Which scopes a plugin may have besides global.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    pub route: bool,
    pub service: bool,
    pub consumer: bool,
    pub consumer_group: bool,
}

impl Scopes {
    pub const ALL: Self = Self { route: true, service: true, consumer: true, consumer_group: true };
    pub const NO_CONSUMER: Self = Self { consumer: false, consumer_group: false, ..Self::ALL };
}
