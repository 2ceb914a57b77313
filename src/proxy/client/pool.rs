//! Idle connections to upstreams, the last one used first.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Instant;

use ahash::AHashMap;

use crate::clock;
use crate::proxy::client::{Connection, Origin, PoolLimits};

/// What two requests must agree on to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    address: SocketAddr,
    tls: Option<(u64, Box<str>)>,
}

impl Key {
    pub fn of(origin: &Origin) -> Self {
        Self { address: origin.address, tls: origin.tls.as_ref().map(|t| (t.tls.id(), t.name.to_str().into())) }
    }
}

/// An idle connection, and until when it may be used; `None` is for ever.
type Idle = (Option<Instant>, Box<Connection>);

/// The idle connections of one worker.
pub struct Pool {
    limits: PoolLimits,
    idle: RefCell<AHashMap<Key, Vec<Idle>>>,
}

impl Pool {
    pub fn new(limits: PoolLimits) -> Self {
        Self { limits, idle: RefCell::default() }
    }

    /// An idle connection that is still open. For a request that must not be sent twice (`once`) the system is asked as well:
    /// on a connection that was just closed it would be lost.
    pub fn take(&self, key: &Key, once: bool) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(key)?;
        while let Some((until, connection)) = connections.pop() {
            if until.is_none_or(|until| clock::now() < until) && connection.is_open() && !(once && connection.is_closed_now()) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end.
    pub fn put(&self, key: Key, connection: Box<Connection>) {
        if self.limits.size == 0 || (self.limits.max_requests > 0 && connection.served() >= self.limits.max_requests) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() >= self.limits.size {
            connections.remove(0);
        }
        connections.push((self.limits.idle_timeout.map(|limit| clock::now() + limit), connection));
    }

    /// Closes what was idle for too long or was closed by the upstream.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|(until, connection)| until.is_none_or(|until| now < until) && connection.is_open());
            !connections.is_empty()
        });
    }
}
