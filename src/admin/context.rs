//! What endpoints see of the node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use uuid::Uuid;

use crate::actors::catalog::Configuration;
use crate::admin::health::Health;
use crate::admin::node::log_level::LogLevels;
use crate::admin::vitals::Vitals;
use crate::catalog::{Catalog, Change, Key, WriteError, Written};

pub use crate::catalog::Schemas;
use crate::plugin::{Descriptor, Handles};
use crate::settings::Settings;
use crate::settings::value::Database;

/// Version of Kong whose contract is spoken; clients such as decK decide by it.
pub const KONG_VERSION: &str = "3.10.0";
/// Version of this program.
pub const TROOP_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The node as the Admin API sees it.
pub struct Context {
    pub node: Node,
    pub options: Options,
    /// The plugins that may be configured.
    pub plugins: Vec<&'static Descriptor>,
    pub schemas: Schemas,
    /// Ways to what plugins keep.
    pub handles: Arc<Handles>,
    pub catalog: Arc<ArcSwap<Catalog>>,
    pub writer: Arc<dyn Writer>,
    /// 32 hexadecimal digits that name the configuration of a node without a database.
    pub configuration_hash: ArcSwap<String>,
    /// Held while a document is loaded.
    pub loading: tokio::sync::Mutex<()>,
    pub health: Arc<dyn Health>,
    pub log_levels: Arc<dyn LogLevels>,
    pub vitals: Arc<dyn Vitals>,
}

/// What does not change while the node runs.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: Uuid,
    pub hostname: String,
    /// The settings as `GET /` shows them, secrets already hidden.
    pub configuration: Value,
}

impl Node {
    pub fn of(settings: &Settings, id: Uuid) -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { id, hostname: hostname.trim().to_owned(), configuration: Value::Object(settings.as_json()) }
    }
}

/// Settings that the Admin API itself obeys.
#[derive(Clone, Debug)]
pub struct Options {
    /// `database = off`: rows are written by `/config` alone.
    pub dbless: bool,
    /// Greatest body in bytes (`nginx_admin_client_max_body_size`).
    pub max_body: usize,
    /// `Server` is sent (`headers` has `server_tokens` or `Server`).
    pub server_header: bool,
    /// `X-Kong-Admin-Latency` is sent.
    pub latency_header: bool,
    /// Origins of the GUI; any origin is let in when there is none.
    pub gui_origins: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { dbless: false, max_body: 10 << 20, server_header: true, latency_header: true, gui_origins: Vec::new() }
    }
}

impl Options {
    pub fn of(settings: &Settings) -> Self {
        Self {
            dbless: settings.database == Database::Off,
            max_body: match settings.nginx_admin_client_max_body_size.0 {
                0 => usize::MAX,
                bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
            },
            server_header: settings.headers.server,
            latency_header: settings.headers.admin_latency,
            gui_origins: Vec::new(),
        }
    }
}

/// A future without a fixed type, so that a trait is object-safe.
pub type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// The one way to change the configuration: the catalog's actor.
pub trait Writer: Send + Sync {
    /// Makes a change. When the answer comes, the change is durable, and the catalog that is read has it.
    fn write(&self, change: Change) -> Pending<Result<Written, WriteError>>;
}

impl Writer for Configuration {
    fn write(&self, change: Change) -> Pending<Result<Written, WriteError>> {
        let configuration = self.clone();
        Box::pin(async move { configuration.write(change).await })
    }
}

impl Context {
    /// Changes the configuration. Without a database nothing may change, and a change that is wrong is refused as such first.
    pub async fn write(&self, change: Change) -> Result<Written, WriteError> {
        if !self.options.dbless {
            return self.writer.write(change).await;
        }
        let refusal = refusal(&change);
        let removes = matches!(change, Change::Delete { .. });
        let plan = match self.catalog.load().plan(change, &self.schemas.context()) {
            // A row that is there cannot be removed at all; what refers to it is beside the point.
            Err(_) if removes => return Err(refusal),
            plan => plan?,
        };
        if plan.edits.is_empty() { Ok(plan.written()) } else { Err(refusal) }
    }
}

/// Code 12 for what a change would do.
fn refusal(change: &Change) -> WriteError {
    let by = |key: &Key| match key {
        Key::Unique { field, .. } => Some(*field),
        Key::Id(_) => None,
    };
    match change {
        Change::Create { entity, .. } => WriteError::unsupported("create", entity.name, None),
        Change::Upsert { entity, key, .. } => WriteError::unsupported("create or update", entity.name, by(key)),
        Change::Update { entity, key, .. } => WriteError::unsupported("update", entity.name, by(key)),
        Change::Delete { entity, key, .. } => WriteError::unsupported("remove", entity.name, by(key)),
        Change::All(changes) => changes.first().map_or_else(WriteError::database, refusal),
        Change::Import(_) | Change::Replace(_) | Change::Sweep => WriteError::database(),
    }
}
