//! One node: everything wired, from settings to listeners, and stopped again.
//!
//! | module | what it holds |
//! |---|---|
//! | [`declared`] | what a node without a database begins with |
//! | [`terms`] | what settings say to the parts |
//! | [`start`] | the order in which the parts come up |
//! | [`workers`] | the threads that serve requests |
//! | [`log`] | what the node writes about itself |
//! | [`metrics`] | what the node says of itself to Prometheus |
//! | [`vitals`] | what the Admin API asks of the running node |
//! | [`signals`] | stop, quit, reload |

mod declared;
pub mod log;
mod metrics;
mod signals;
mod start;
mod terms;
mod vitals;
mod workers;

use crate::settings::Settings;

pub use start::{enabled_plugins, schemas};

/// Why a node does not start: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Settings(String),
    #[error("cannot use the prefix {prefix}: {error}. Give another directory with `prefix` or -p, or the right to write there")]
    Prefix { prefix: String, error: std::io::Error },
    #[error("cannot listen on {address} ({setting}): {error}. Stop what uses it, or change {setting}")]
    Listen { setting: &'static str, address: std::net::SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("error parsing declarative config file {path}:\n{errors}")]
    Declarative { path: String, errors: String },
    #[error("{what}: {error}")]
    Io { what: &'static str, error: std::io::Error },
}

/// Runs a node until it is told to stop. `started` is called once it serves.
pub fn run(settings: Settings, started: impl FnOnce()) -> Result<(), StartError> {
    let runtime = actix::System::new();
    runtime.block_on(async move {
        let node = start::Node::start(settings).await?;
        started();
        node.serve().await;
        Ok(())
    })
}
