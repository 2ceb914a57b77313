//! What the Admin API asks of the balancers: the health of targets, and to set it by hand.

use std::future::Future;
use std::pin::Pin;

use serde_json::Value;
use uuid::Uuid;

/// Health of a target or of one of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Healthy,
    Unhealthy,
    /// No health checks, or nothing to check.
    ChecksOff,
    /// The name has no address.
    DnsError,
}

impl State {
    /// Kong's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
            Self::ChecksOff => "HEALTHCHECKS_OFF",
            Self::DnsError => "DNS_ERROR",
        }
    }
}

/// One address of a target.
#[derive(Clone, Debug)]
pub struct Address {
    /// An address, or the name that an SRV record points to.
    pub ip: String,
    pub port: u16,
    pub weight: u64,
    pub state: State,
}

/// A target as its balancer sees it.
#[derive(Clone, Debug)]
pub struct TargetHealth {
    pub host: String,
    pub port: u16,
    /// The kind of record that gave the addresses, or the resolver's error.
    pub dns: String,
    /// Weight of the row.
    pub node_weight: u64,
    pub addresses: Vec<Address>,
    pub state: State,
}

/// An upstream's balancer as a whole.
#[derive(Clone, Debug)]
pub struct BalancerHealth {
    /// Whether enough weight is available for requests to be balanced.
    pub healthy: bool,
    /// Whether the upstream has health checks.
    pub checks: bool,
    pub hosts: Vec<TargetHealth>,
}

/// Which addresses to set the health of.
#[derive(Clone, Debug)]
pub struct Which {
    pub upstream: Uuid,
    pub target: Uuid,
    /// `ip` or `ip:port`; all addresses of the target when absent.
    pub address: Option<String>,
}

/// Why the health could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetError {
    /// The target has no such address.
    UnknownAddress,
    /// The upstream has no health checks.
    NoChecks,
}

/// A future without a fixed type, so that the trait is object-safe.
pub type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// The balancers' side.
pub trait Health: Send + Sync {
    /// A target of an upstream; `None` when the balancer does not know it (yet).
    fn target(&self, upstream: Uuid, target: Uuid) -> Option<TargetHealth>;

    fn balancer(&self, upstream: Uuid) -> Option<BalancerHealth>;

    /// Sets the health of addresses until checks or another call change it.
    fn set(&self, which: Which, healthy: bool) -> Pending<Result<(), SetError>>;
}

/// `{"total", "available", "unavailable"}` of some addresses.
pub fn weights<'a>(addresses: impl Iterator<Item = &'a Address>) -> Value {
    let (mut total, mut available) = (0, 0);
    for address in addresses {
        total += address.weight;
        if matches!(address.state, State::Healthy | State::ChecksOff) {
            available += address.weight;
        }
    }
    serde_json::json!({"total": total, "available": available, "unavailable": total - available})
}

/// A node without balancers: nothing is known of any target.
pub struct NoBalancers;

impl Health for NoBalancers {
    fn target(&self, _: Uuid, _: Uuid) -> Option<TargetHealth> {
        None
    }

    fn balancer(&self, _: Uuid) -> Option<BalancerHealth> {
        None
    }

    fn set(&self, _: Which, _: bool) -> Pending<Result<(), SetError>> {
        Box::pin(async { Err(SetError::NoChecks) })
    }
}
