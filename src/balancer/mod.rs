//! Which target takes a request. Pure: time is passed in, names come resolved.
//!
//! A [`Balancer`] stands for one upstream in one configuration and is part of the snapshot. Workers call it from every
//! thread; nothing in it waits or locks. Its ring is replaced by the upstream's actor when names resolve anew; the states
//! of its addresses are atomics that rings and configurations share.
//!
//! | module | what it holds |
//! |---|---|
//! | [`policy`] | what the rows say, made ready to run |
//! | [`ring`] | the addresses of an upstream, and the four ways to choose one |
//! | [`address`] | an address and what is known of it |
//! | [`health`] | counters, limits and states of health checks |
//! | [`hash`] | what consistent-hashing hashes |
//! | [`shares`] | exact shares by weight |
//! | [`clock`] | instants as numbers |
//! | [`dns`] | what names resolve to, and the handle to ask |

pub mod address;
mod clock;
pub mod dns;
pub mod hash;
pub mod health;
pub mod policy;
pub mod ring;
pub mod shares;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use address::{Address, Peer, PeerId};
pub use dns::{DnsError, Resolved, Resolver};
pub use hash::{HashInput, HashKey};
pub use health::{Checks, Health, Outcome, State};
pub use policy::{Algorithm, Destination, Policy, Resolution};

use ring::{Memory, Ring};

/// Why no peer was chosen. Every one is answered `503 failure to get a peer from the ring-balancer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPeer {
    /// Too little of the weight is available, or there is none.
    #[error("balancer is unhealthy")]
    Unhealthy,
    /// Every address has failed this request.
    #[error("no peers are available")]
    NoneLeft,
    /// The names of the targets are being resolved for the first time.
    #[error("the targets are not resolved yet")]
    Resolving,
}

impl NoPeer {
    pub const STATUS: u16 = 503;
    pub const MESSAGE: &str = "failure to get a peer from the ring-balancer";
}

/// An address became available or unavailable.
#[derive(Clone, Debug)]
pub struct Flip {
    pub upstream: Arc<str>,
    pub address: Arc<Address>,
    pub available: bool,
}

/// Who wants to know of flips: called on the thread of the request, so it must not wait.
pub trait Watcher: Send + Sync {
    fn flipped(&self, flip: Flip);
}

/// One upstream in one configuration.
pub struct Balancer {
    pub policy: Policy,
    ring: ArcSwap<Ring>,
    memory: Arc<Memory>,
    watcher: Option<Arc<dyn Watcher>>,
    resolver: Resolver,
    /// Counts rings, for requests that wait for the first resolution.
    built: watch::Sender<u64>,
}

/// How long a request waits for the targets' names to be resolved for the first time.
const FIRST_RESOLUTION: Duration = Duration::from_secs(10);

impl Balancer {
    /// The balancer of an upstream. States of addresses are those of `memory`; names come from the cache, and targets whose
    /// names are not there wait for the upstream's actor.
    pub fn new(
        policy: Policy,
        destinations: Vec<Destination>,
        memory: Arc<Memory>,
        resolver: Resolver,
        watcher: Option<Arc<dyn Watcher>>,
        now: Instant,
    ) -> Self {
        let destinations = destinations.into_iter().map(|destination| {
            let resolution = match resolver.cached(&destination.host) {
                Some(Ok(resolved)) => Resolution::Found(resolved),
                Some(Err(error)) => Resolution::Failed(error),
                None => Resolution::Pending,
            };
            (destination, resolution)
        });
        let ring = Ring::build(&policy, destinations.collect(), &memory, now);
        Self { policy, ring: ArcSwap::from_pointee(ring), memory, watcher, resolver, built: watch::Sender::new(0) }
    }

    /// The ring as it is now.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Replaces the ring: the targets' names have resolved anew. Only the upstream's actor does this.
    pub fn rebuild(&self, destinations: Vec<(Destination, Resolution)>, now: Instant) {
        self.ring.store(Arc::new(Ring::build(&self.policy, destinations, &self.memory, now)));
        self.built.send_modify(|count| *count += 1);
    }

    /// Whether requests are hashed, so that a [`HashKey`] is needed.
    pub fn hashes(&self) -> bool {
        self.policy.algorithm == Algorithm::ConsistentHashing
    }

    /// The key of a request.
    pub fn hash_key(&self, input: &HashInput<'_>) -> HashKey {
        self.policy.hashing.key(input)
    }

    /// Chooses a peer without waiting. `hash` is used by consistent-hashing alone; `tried` are the peers that failed this
    /// request. The peer is kept until its try is over, because least-connections counts it.
    pub fn pick(&self, hash: Option<u32>, tried: &[PeerId], now: Instant) -> Result<Peer, NoPeer> {
        self.ring.load().pick(&self.policy, &self.memory, hash.unwrap_or(0), tried, now)
    }

    /// Like [`Balancer::pick`]; waits where the names of the targets have not been resolved yet, or are to be resolved for
    /// every request.
    pub async fn peer(&self, hash: Option<u32>, tried: &[PeerId], now: Instant) -> Result<Peer, NoPeer> {
        let mut peer = match self.pick(hash, tried, now) {
            Err(NoPeer::Resolving) => {
                let mut built = self.built.subscribe();
                let picked = async {
                    loop {
                        match self.pick(hash, tried, now) {
                            Err(NoPeer::Resolving) => {}
                            picked => return picked,
                        }
                        if built.changed().await.is_err() {
                            return Err(NoPeer::Resolving);
                        }
                    }
                };
                tokio::time::timeout(FIRST_RESOLUTION, picked).await.unwrap_or(Err(NoPeer::Resolving))?
            }
            picked => picked?,
        };
        if peer.transient
            && let Some(addr) = self.resolve_again(&peer).await
        {
            peer.addr = addr;
        }
        Ok(peer)
    }

    async fn resolve_again(&self, peer: &Peer) -> Option<SocketAddr> {
        self.resolver.resolve(&peer.target).await.ok()?.next(peer.port)
    }

    /// Tells how a try ended, for passive health checks and latency. `latency` is the time to connect and to the answer's
    /// head, where there was one. Cheap; never waits.
    pub fn report(&self, peer: &Peer, outcome: Outcome, latency: Option<Duration>, now: Instant) {
        if let (Algorithm::Latency, Some(latency)) = (self.policy.algorithm, latency) {
            peer.vitals.observe(latency, now);
        }
        if self.policy.checks.listens {
            let (before, after) = peer.vitals.report(outcome, &self.policy.checks.passive);
            self.settle(peer, before, after);
        }
    }

    /// Takes the result of a probe into account.
    pub fn probed(&self, address: &Arc<Address>, outcome: Outcome) {
        let (before, after) = address.vitals.report(outcome, &self.policy.checks.active);
        self.settle(address, before, after);
    }

    /// Takes the result of a probe into account that is to bring an address back: one good answer does.
    pub fn tried_again(&self, address: &Arc<Address>, outcome: Outcome) {
        let Checks { active, passive, .. } = &self.policy.checks;
        if (active.good(outcome) || passive.good(outcome)) && !address.available() {
            self.settle(address, address.vitals.set(true), Health::of(true));
        }
    }

    /// Sets the state of the addresses of a target: all of them, or the one with this address and port. False when there is
    /// none.
    pub fn set_health(&self, target: &str, address: Option<(&str, u16)>, healthy: bool) -> bool {
        let ring = self.ring.load();
        let places = ring.places.iter().filter(|place| &*place.destination.target == target);
        let mut found = false;
        for each in places.flat_map(|place| &place.addresses) {
            if address.is_none_or(|(ip, port)| *each.ip == *ip && each.port == port) {
                found = true;
                self.settle(each, each.vitals.set(healthy), Health::of(healthy));
            }
        }
        found
    }

    /// Whether enough of the weight is available.
    pub fn healthy(&self) -> bool {
        self.ring.load().healthy(&self.policy, &self.memory)
    }

    fn settle(&self, address: &Address, before: Health, after: Health) {
        if before.available() == after.available() {
            return;
        }
        self.memory.changed();
        let ring = self.ring.load();
        let same = |each: &&Arc<Address>| each.id() == address.id();
        if let Some(watcher) = &self.watcher
            && let Some(address) = ring.places.iter().flat_map(|place| &place.addresses).find(same)
        {
            let flip = Flip { upstream: self.policy.name.clone(), address: address.clone(), available: after.available() };
            watcher.flipped(flip);
        }
    }
}

#[cfg(test)]
mod tests;
