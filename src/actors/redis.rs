//! The connections to Redis servers: one for each server that some plugin names, for as long as one does.
//!
//! [`Connections`] is what plugins hold as their handle. Each connection has an actor of its own, the [`connection::Keeper`],
//! which makes it, watches it and makes it anew; requests send their commands on it by themselves. Each group of counters
//! that is brought in batches has a [`Carrier`].

mod connection;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use actix_rt::ArbiterHandle;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::RngExt;
use rustls::pki_types::CertificateDer;

use self::connection::{Connection, Means};
use super::supervise::supervise;
use crate::balancer::Resolver;
use crate::plugin::redis::{Link, Redis, Server};
use crate::plugin::redis_counters::Batches;
use crate::snapshot::UpstreamTls;
use crate::snapshot::upstream_tls::Terms;

/// Time that a node which ends gives to what it has to tell.
const PARTING: Duration = Duration::from_secs(3);

/// All connections of a node. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    arbiter: ArbiterHandle,
    means: Means,
    failures: Arc<AtomicU64>,
    links: Mutex<HashMap<Server, Weak<Connection>>>,
    batches: Mutex<HashMap<(Server, Duration), Weak<Batches>>>,
}

impl Connections {
    /// Connections are made and kept on `arbiter`. `authorities` are those that servers' certificates are verified by, the
    /// system's when empty; `depth` is the longest chain between the two.
    pub fn new(arbiter: ArbiterHandle, resolver: Resolver, authorities: Vec<CertificateDer<'static>>, depth: usize) -> Self {
        let verified = UpstreamTls::new(Terms { verify: true, depth, authorities, client: None }).map_or_else(
            |error| {
                tracing::error!(%error, "certificates of Redis servers cannot be verified: such connections will fail");
                UpstreamTls::unusable()
            },
            Arc::new,
        );
        let means = Means { resolver, verified };
        let (links, batches) = Default::default();
        Self { shared: Arc::new(Shared { arbiter, means, failures: Arc::default(), links, batches }) }
    }

    /// Brings what is counted here and sends what is told, before a node ends; as far as that takes no longer than
    /// [`PARTING`].
    pub async fn settle(&self) {
        let batches: Vec<_> = self.shared.batches.lock().values().filter_map(Weak::upgrade).collect();
        let links: Vec<_> = self.shared.links.lock().values().filter_map(Weak::upgrade).collect();
        let settled = async {
            join_all(batches.iter().map(|batches| batches.bring())).await;
            join_all(links.iter().map(|link| link.say())).await;
        };
        if actix_rt::time::timeout(PARTING, settled).await.is_err() {
            tracing::warn!("redis does not answer, what was counted last is lost");
        }
    }

    fn connection(&self, server: &Server) -> Arc<Connection> {
        let Shared { arbiter, means, failures, links, .. } = &*self.shared;
        let mut links = links.lock();
        if let Some(link) = links.get(server).and_then(Weak::upgrade) {
            return link;
        }
        links.retain(|_, link| link.strong_count() > 0);
        let link = Arc::new(Connection::start(server.clone(), means.clone(), failures.clone(), arbiter));
        links.insert(server.clone(), Arc::downgrade(&link));
        link
    }
}

impl Redis for Connections {
    fn link(&self, server: &Server) -> Arc<dyn Link> {
        self.connection(server)
    }

    fn batches(&self, server: &Server, period: Duration) -> Arc<Batches> {
        let mut all = self.shared.batches.lock();
        let key = (server.clone(), period);
        if let Some(batches) = all.get(&key).and_then(Weak::upgrade) {
            return batches;
        }
        all.retain(|_, batches| batches.strong_count() > 0);
        let batches = Arc::new(Batches::new(self.connection(server)));
        let weak = Arc::downgrade(&batches);
        all.insert(key, weak.clone());
        let changed = batches.changed();
        supervise("redis batches", &self.shared.arbiter, 1, move || Carrier { batches: weak.clone(), changed: changed.clone(), period });
        batches
    }

    fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }
}

/// Brings batches `period` after something was counted in them, as long as somebody keeps them.
struct Carrier {
    batches: Weak<Batches>,
    changed: Arc<tokio::sync::Notify>,
    period: Duration,
}

impl Actor for Carrier {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let (batches, changed, period) = (self.batches.clone(), self.changed.clone(), self.period);
        let life = async move {
            loop {
                changed.notified().await;
                if batches.strong_count() == 0 {
                    return;
                }
                actix_rt::time::sleep(period.mul_f64(rand::rng().random_range(1.0..1.1))).await;
                let Some(batches) = batches.upgrade() else { return };
                batches.bring().await;
            }
        };
        context.spawn(life.into_actor(self).map(|(), _, context| context.stop()));
    }
}

#[cfg(test)]
mod tests;
