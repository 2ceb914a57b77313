//! The immutable world that one request sees: router, plugin plans, services, look-ups. Built anew, from what has not
//! changed where it can be, whenever the configuration changes, and swapped as one pointer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | which plugin configurations run on a request |
//! | [`upstream_tls`] | TLS towards upstreams |

pub mod plan;
pub mod upstream_tls;

pub use plan::Plan;
pub use upstream_tls::UpstreamTls;

/// Time limits of a request, each between two successive operations.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: std::time::Duration,
    pub write: std::time::Duration,
    pub read: std::time::Duration,
}
