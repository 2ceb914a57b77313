//! One node: everything wired, from settings to listeners, and stopped again.
//!
//! | module | what it holds |
//! |---|---|
//! | [`declared`] | what a node without a database begins with |
//! | [`terms`] | what settings say to the parts |
//! | [`start`] | the order in which the parts come up |
//! | [`listeners`] | sockets, and how TLS is spoken on them |
//! | [`certificates`] | the node's own certificates |
//! | [`proxy`] | the workers and their sockets, and their replacement when settings are read again |
//! | [`workers`] | the threads that serve requests |
//! | [`log`] | what the node writes about itself |
//! | [`metrics`] | what the node says of itself to Prometheus |
//! | [`vitals`] | what the Admin API asks of the running node |
//! | [`signals`] | stop, quit, reload |

mod certificates;
mod declared;
mod listeners;
pub mod log;
mod metrics;
mod proxy;
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
    #[error("cannot listen on {address} ({setting}): {error}. {}", advice(error, setting))]
    Listen { setting: &'static str, address: std::net::SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("error parsing declarative config file {path}:\n{errors}")]
    Declarative { path: String, errors: String },
    #[error("{what}: {error}")]
    Io { what: &'static str, error: std::io::Error },
}

/// What to do about an address that cannot be listened on.
fn advice(error: &std::io::Error, setting: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("Ports below 1024 need a right (CAP_NET_BIND_SERVICE): give it, or change {setting}")
        }
        std::io::ErrorKind::AddrNotAvailable => format!("This machine has no such address: change {setting}"),
        _ => format!("Stop what uses it, or change {setting}"),
    }
}

/// Runs a node until it is told to stop. `started` is called once it serves.
pub fn run(settings: Settings, started: impl FnOnce()) -> Result<(), StartError> {
    let runtime = actix::System::new();
    runtime.block_on(async move {
        let listening = [
            ("proxy_listen", settings.proxy_listen.clone()),
            ("admin_listen", settings.admin_listen.clone()),
            ("status_listen", settings.status_listen.clone()),
        ];
        let node = start::Node::start(settings).await?;
        for (setting, listeners) in listening {
            listeners.iter().for_each(|listen| tracing::info!(setting, address = %listen.address, ssl = listen.ssl, "listening"));
        }
        started();
        node.serve().await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::StartError;

    #[test]
    fn advice_is_about_what_went_wrong() {
        let text = |kind: ErrorKind| {
            let address = "127.0.0.1:80".parse().expect("an address");
            StartError::Listen { setting: "proxy_listen", address, error: Error::from(kind) }.to_string()
        };
        assert!(text(ErrorKind::AddrInUse).ends_with("Stop what uses it, or change proxy_listen"));
        assert!(text(ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
        assert!(text(ErrorKind::AddrNotAvailable).contains("no such address"));
    }
}
