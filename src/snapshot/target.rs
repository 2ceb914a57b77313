//! Which address takes a request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::balancer::{Balancer, HashInput, NoPeer, Outcome, Peer, PeerId, Resolver};
use crate::clock;
use crate::plugin::{Exchange, Reply};

/// Where requests for a host go.
#[derive(Clone)]
pub enum Destination {
    /// The host is an address.
    Address(IpAddr),
    /// The host is the name of an upstream.
    Upstream(Arc<Balancer>),
    /// The host is a name to resolve.
    Name(Resolver),
}

impl Destination {
    /// Whether both lead to the same place.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(a), Self::Address(b)) => a == b,
            (Self::Upstream(a), Self::Upstream(b)) => Arc::ptr_eq(a, b),
            (Self::Name(_), Self::Name(_)) => true,
            _ => false,
        }
    }
}

/// An address for one try.
pub struct Picked {
    pub address: SocketAddr,
    peer: Option<Peer>,
}

impl Picked {
    /// The Host header that the target asks for.
    pub fn host_header(&self, tls: bool) -> Option<&str> {
        self.peer.as_ref().map(|peer| peer.host_header(tls))
    }
}

/// The choice of addresses for one request: each try gets another one where there is one.
pub struct Picking {
    destination: Destination,
    hash: Option<u32>,
    tried: SmallVec<[PeerId; 4]>,
    /// The cookie that makes later requests go to the same target.
    pub set_cookie: Option<String>,
}

impl Picking {
    pub fn new(destination: Destination, x: &Exchange) -> Self {
        let key = match &destination {
            Destination::Upstream(balancer) if balancer.hashes() => Some(balancer.hash_key(&HashInput {
                consumer: x.authenticated.consumer.as_ref().map(|c| c.id),
                credential: x.authenticated.credential.as_ref().map(|c| c.id.as_str()),
                ip: x.client.ip,
                headers: &x.request.headers,
                path: &x.path,
                query: x.request.query().unwrap_or_default(),
                capture: &|name| x.captures.named(name).or_else(|| x.captures.number(name.parse().ok()?)),
            })),
            _ => None,
        };
        Self { destination, hash: key.as_ref().map(|k| k.value), tried: SmallVec::new(), set_cookie: key.and_then(|k| k.set_cookie) }
    }

    /// The address for the next try.
    pub async fn next(&mut self, x: &Exchange) -> Result<Picked, Reply> {
        match &self.destination {
            Destination::Address(ip) => Ok(Picked { address: SocketAddr::new(*ip, x.upstream.port), peer: None }),
            Destination::Upstream(balancer) => {
                let now = clock::now();
                let picked = match balancer.pick(self.hash, &self.tried, now) {
                    Err(NoPeer::Resolving) => balancer.peer(self.hash, &self.tried, now).await,
                    Ok(peer) if peer.transient => balancer.peer(self.hash, &self.tried, now).await,
                    picked => picked,
                };
                let peer = picked.map_err(|_| Reply::error(NoPeer::STATUS, NoPeer::MESSAGE))?;
                Ok(Picked { address: peer.addr, peer: Some(peer) })
            }
            Destination::Name(resolver) => {
                let answer = match resolver.cached(&x.upstream.host) {
                    Some(answer) => answer,
                    None => resolver.resolve(&x.upstream.host).await,
                };
                let resolved = answer.map_err(|error| {
                    tracing::warn!(host = %x.upstream.host, %error, "the service's host does not resolve");
                    let (status, message) = error.answer();
                    Reply::error(status, message)
                })?;
                let address = resolved.next(x.upstream.port).ok_or_else(|| Reply::error(503, "name resolution failed"))?;
                Ok(Picked { address, peer: None })
            }
        }
    }

    /// Tells the balancer how a try ended that began at `began`, for passive health checks and latency.
    pub fn report(&mut self, picked: &Picked, outcome: Outcome, began: Instant) {
        let (Destination::Upstream(balancer), Some(peer)) = (&self.destination, &picked.peer) else { return };
        let now = clock::now();
        let latency = if let Outcome::Status(_) = outcome { Some(now.saturating_duration_since(began)) } else { None };
        if latency.is_none() {
            self.tried.push(peer.id());
        }
        balancer.report(peer, outcome, latency, now);
    }
}
