//! What an upstream's row and its targets' rows say, made ready to run.

use std::sync::Arc;

use uuid::Uuid;

use super::dns::{self, DnsError, Resolved};
use super::hash::Hashing;
use super::health::Checks;
use crate::model::{Target, Upstream};

/// How a target is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    #[default]
    RoundRobin,
    ConsistentHashing,
    LeastConnections,
    Latency,
}

/// An upstream as it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub id: Uuid,
    pub name: Arc<str>,
    pub algorithm: Algorithm,
    pub hashing: Hashing,
    pub slots: usize,
    pub checks: Checks,
    /// Host header for all targets.
    pub host_header: Option<Arc<str>>,
    /// Use the name in an SRV record, not that of the target, in the Host header.
    pub use_srv_name: bool,
    /// Certificate for the upstream's servers, for services that have none.
    pub client_certificate: Option<Uuid>,
}

impl Policy {
    pub fn of(upstream: &Upstream) -> Self {
        let algorithm = match upstream.algorithm.as_deref() {
            Some("consistent-hashing") => Algorithm::ConsistentHashing,
            Some("least-connections") => Algorithm::LeastConnections,
            Some("latency") => Algorithm::Latency,
            _ => Algorithm::RoundRobin,
        };
        Self {
            id: upstream.id,
            name: (*upstream.name).into(),
            algorithm,
            hashing: Hashing::of(upstream),
            slots: upstream.slots.unwrap_or(10_000) as usize,
            checks: Checks::from(&upstream.healthchecks),
            host_header: upstream.host_header.as_deref().map(Into::into),
            use_srv_name: upstream.use_srv_name.unwrap_or(false),
            client_certificate: upstream.client_certificate.as_ref().map(|parent| parent.id),
        }
    }
}

/// A target as it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    pub id: Uuid,
    /// `host:port`, as the row says.
    pub target: Arc<str>,
    /// Host name or address, as the row says.
    pub host: Arc<str>,
    pub port: u16,
    pub weight: u32,
}

impl Destination {
    pub fn of(target: &Target) -> Self {
        let (host, port) = split(&target.target);
        let weight = target.weight.unwrap_or(100);
        Self { id: target.id, target: (*target.target).into(), host: host.into(), port, weight }
    }

    /// Whether the host is a name, and so has to be resolved.
    pub fn named(&self) -> bool {
        dns::literal(&self.host).is_none()
    }
}

/// The port of a target that names none.
pub const DEFAULT_PORT: u16 = 8000;

/// Host and port of `host:port`, `[v6]:port`, or of either without a port.
pub fn split(target: &str) -> (&str, u16) {
    let bare = (target, DEFAULT_PORT);
    match target.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => port.parse().map_or(bare, |port| (host, port)),
        _ => bare,
    }
}

/// How far the resolution of a target's name has come.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// Nobody has answered yet.
    Pending,
    Found(Arc<Resolved>),
    Failed(DnsError),
}

impl Resolution {
    /// Whether both give the same addresses.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pending, Self::Pending) => true,
            (Self::Found(a), Self::Found(b)) => (a.kind, a.transient, &a.records) == (b.kind, b.transient, &b.records),
            (Self::Failed(a), Self::Failed(b)) => a == b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn targets_are_split() {
        for (target, host, port) in [
            ("a.test:80", "a.test", 80),
            ("a.test", "a.test", 8000),
            ("10.0.0.1:9", "10.0.0.1", 9),
            ("[::1]:80", "[::1]", 80),
            ("[::1]", "[::1]", 8000),
            ("::1", "::1", 8000),
        ] {
            assert_eq!(split(target), (host, port), "{target}");
        }
    }
}
