//! Where rows survive a restart.
//!
//! | module | what it holds |
//! |---|---|
//! | [`embedded`] | the store of a node that needs nothing else: one file in the prefix |
//! | [`health`] | how writing goes, for metrics |
//! | [`memory`] | rows that live as long as the process: for tests |

pub mod embedded;
mod health;
pub mod memory;

use std::path::PathBuf;
use std::sync::Arc;

use crate::catalog::{Edit, Row};

pub use embedded::Embedded;
pub use embedded::records::{Kept, Name};
pub use health::Health;
pub use memory::Memory;

/// Where rows survive a restart. Calls block: they belong on a thread that may.
pub trait Store: Send + Sync + 'static {
    /// All rows, once, at the start.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Makes edits durable, all or none. The edits of several changes come together, for one trip to the disk.
    fn commit(&self, edits: &[Edit]) -> Result<(), StoreError>;

    /// Name of the store in logs and in `GET /`.
    fn name(&self) -> &'static str;
}

/// What a store held at the start.
#[derive(Default)]
pub struct Loaded {
    pub rows: Vec<Arc<Row>>,
    /// Rows that this version cannot read, kept as they are and not in effect: entity, id and reason.
    pub left_out: Vec<String>,
}

/// Why a store cannot be used. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use {path}: {source}; check that the directory exists, has space left and belongs to the user that runs troop")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is in use: another troop runs with this prefix; stop it or choose another prefix")]
    InUse { path: PathBuf },
    #[error(
        "{path} is damaged or not a store of troop ({reason}); restore it from a backup, or move it away to start with an empty configuration"
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{path} holds the configuration of a node of a cluster: start it with cluster = on, or choose another prefix and bring the \
         configuration in from a running node"
    )]
    OfACluster { path: PathBuf },
    #[error("{path} was written by a later version of troop (format {found}, this version reads {known}); run that version or a later one")]
    Newer { path: PathBuf, found: u32, known: u32 },
}
