//! What the Admin API asks of the balancers: the health of targets, and to set it by hand.

use serde_json::Value;
use uuid::Uuid;

use crate::actors::upstreams::{Shown, Upstreams, address_health, dns_source, target_health};

pub use crate::actors::upstreams::Which;

/// Health of a target or of one of its addresses.
pub type State = Shown;

/// Kong's word for a state.
pub fn word(state: State) -> &'static str {
    match state {
        State::Healthy => "HEALTHY",
        State::Unhealthy => "UNHEALTHY",
        State::ChecksOff => "HEALTHCHECKS_OFF",
        State::DnsError => "DNS_ERROR",
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

/// Why the health could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetError {
    /// The target has no such address.
    UnknownAddress,
    /// The upstream has no health checks.
    NoChecks,
}

/// The balancers' side.
pub trait Health: Send + Sync {
    /// A target of an upstream; `None` when the balancer does not know it (yet).
    fn target(&self, upstream: Uuid, target: Uuid) -> Option<TargetHealth>;

    fn balancer(&self, upstream: Uuid) -> Option<BalancerHealth>;

    /// Sets the health of addresses until checks or another call change it.
    fn set(&self, which: &Which, healthy: bool) -> Result<(), SetError>;
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

impl Health for Upstreams {
    fn target(&self, upstream: Uuid, target: Uuid) -> Option<TargetHealth> {
        let balancer = Upstreams::balancer(self, upstream)?;
        let ring = balancer.ring();
        let place = ring.places.iter().find(|place| place.destination.id == target)?;
        let state = target_health(&balancer, place);
        let addresses = place.addresses.iter().map(|address| Address {
            ip: address.ip.to_string(),
            port: address.port,
            weight: address.weight.into(),
            state: address_health(&balancer, place, address),
        });
        let to = &place.destination;
        Some(TargetHealth {
            host: to.host.to_string(),
            port: to.port,
            dns: dns_source(place),
            node_weight: to.weight.into(),
            addresses: addresses.collect(),
            state,
        })
    }

    fn balancer(&self, upstream: Uuid) -> Option<BalancerHealth> {
        let balancer = Upstreams::balancer(self, upstream)?;
        let targets: Vec<Uuid> = balancer.ring().places.iter().map(|place| place.destination.id).collect();
        let hosts = targets.into_iter().filter_map(|target| self.target(upstream, target)).collect();
        Some(BalancerHealth { healthy: balancer.healthy(), checks: balancer.policy.checks.on, hosts })
    }

    fn set(&self, which: &Which, healthy: bool) -> Result<(), SetError> {
        let known = self.target(which.upstream, which.target).map_or_else(Vec::new, |target| target.addresses);
        let meant = |name: &String| known.iter().any(|a| a.ip == *name || format!("{}:{}", a.ip, a.port) == *name);
        if !which.address.as_ref().is_none_or(meant) {
            return Err(SetError::UnknownAddress);
        }
        self.set_health(which, healthy).map(drop).map_err(|_| SetError::NoChecks)
    }
}
