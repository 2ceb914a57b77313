//! What the Admin API asks of the balancers.

use std::sync::Arc;

use uuid::Uuid;

use crate::actors::upstreams::{Shown, Upstreams, address_health, dns_source, target_health};
use crate::admin::health::{Address, BalancerHealth, Health, Pending, SetError, State, TargetHealth, Which};
use crate::balancer::Balancer;
use crate::balancer::ring::Place;

/// The balancers' side of the Admin API.
pub struct Balancers(pub Arc<Upstreams>);

impl Health for Balancers {
    fn target(&self, upstream: Uuid, target: Uuid) -> Option<TargetHealth> {
        let balancer = self.0.balancer(upstream)?;
        let ring = balancer.ring();
        let place = ring.places.iter().find(|place| place.destination.id == target)?;
        Some(shown(&balancer, place))
    }

    fn balancer(&self, upstream: Uuid) -> Option<BalancerHealth> {
        let balancer = self.0.balancer(upstream)?;
        let hosts = balancer.ring().places.iter().map(|place| shown(&balancer, place)).collect();
        Some(BalancerHealth { healthy: balancer.healthy(), checks: balancer.policy.checks.on, hosts })
    }

    fn set(&self, which: Which, healthy: bool) -> Pending<Result<(), SetError>> {
        let done = self.0.set_health(which.upstream, which.target, which.address.as_deref(), healthy);
        Box::pin(async move { done.map_err(|_| SetError::NoChecks) })
    }
}

fn shown(balancer: &Balancer, place: &Place) -> TargetHealth {
    let addresses = place.addresses.iter().map(|address| Address {
        ip: address.ip.to_string(),
        port: address.port,
        weight: address.weight.into(),
        state: state(address_health(balancer, place, address)),
    });
    TargetHealth {
        host: place.destination.host.to_string(),
        port: place.destination.port,
        dns: dns_source(place),
        node_weight: place.destination.weight.into(),
        addresses: addresses.collect(),
        state: state(target_health(balancer, place)),
    }
}

fn state(shown: Shown) -> State {
    match shown {
        Shown::Healthy => State::Healthy,
        Shown::Unhealthy => State::Unhealthy,
        Shown::ChecksOff => State::ChecksOff,
        Shown::DnsError => State::DnsError,
    }
}
