//! The health of upstreams' targets, for metrics.

/// Knows the health of all targets of all upstreams.
pub trait Health: Send + Sync {
    /// Calls `visit` for each address of each target, and for each target without one.
    fn each(&self, visit: &mut dyn FnMut(&Seen<'_>));

    /// How often probes and lookups of names succeeded and failed since the node started.
    fn totals(&self) -> Totals;
}

/// One address of a target, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Name of the upstream.
    pub upstream: &'a str,
    /// `host:port` of the target.
    pub target: &'a str,
    /// `ip:port`; empty for a target that does not resolve.
    pub address: &'a str,
    /// `healthy`, `unhealthy`, `healthchecks_off` or `dns_error`.
    pub state: &'static str,
}

/// Counts since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub probe_successes: u64,
    pub probe_failures: u64,
    /// Addresses that became healthy, and unhealthy.
    pub became_healthy: u64,
    pub became_unhealthy: u64,
    /// Names that requests and upstreams asked for, those that were not known, and those that were given past their time.
    pub dns_requests: u64,
    pub dns_misses: u64,
    pub dns_stale: u64,
    /// Lookups that failed.
    pub dns_failures: u64,
}
