//! What the Admin API asks of the running node: counters, readiness, metrics, memory.

/// Connections and requests of the proxy since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    pub accepted: u64,
    pub handled: u64,
    pub active: u64,
    pub reading: u64,
    pub writing: u64,
    pub waiting: u64,
    pub requests: u64,
}

/// Whether the node takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// The first router is not built yet.
    NoRouter,
    /// A node without a database has been given no configuration.
    NoConfiguration,
    /// The node is told to take no new traffic.
    Draining,
}

impl Readiness {
    /// The message of `/status/ready`.
    pub fn message(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NoRouter => "router builds not yet complete",
            Self::NoConfiguration => "no configuration available (empty configuration present)",
            Self::Draining => "draining",
        }
    }
}

/// The running node's side.
pub trait Vitals: Send + Sync {
    fn connections(&self) -> Connections;

    fn readiness(&self) -> Readiness;

    /// Makes the node unready, so that load balancers take it out.
    fn drain(&self);

    /// Whether the store answers.
    fn store_reachable(&self) -> bool;

    /// The metrics as Prometheus reads them; `None` where the prometheus plugin cannot be enabled. May take milliseconds.
    fn metrics(&self) -> Option<String>;
}

/// Bytes of memory that the process holds.
pub fn resident_memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}
