//! One upstream: resolves the names of its targets again when their time is over, and hears of changes of health.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture};
use actix_rt::ArbiterHandle;
use arc_swap::ArcSwap;
use rand::RngExt;

use super::supervise::{Supervised, supervise};
use crate::balancer::dns::Answer;
use crate::balancer::{Balancer, Destination, Flip, Resolution, Resolver, Watcher};

/// Messages that may wait.
const MAILBOX: usize = 256;
/// A name that does not resolve is tried again after this.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// A name whose records are not to be kept is looked at again after this.
const TRANSIENT: Duration = Duration::from_secs(60);
/// Never sooner than this, also where an answer past its time was given.
const SOONEST: Duration = Duration::from_millis(50);
/// Names that resolve within this time make one new ring.
const GATHER: Duration = Duration::from_millis(2);

/// The balancer of an upstream in the present configuration, for the actors that work on it.
pub type Slot = Arc<ArcSwap<Balancer>>;

/// What happened to the upstreams of a node.
#[derive(Debug, Default)]
pub struct UpstreamCounts {
    pub became_healthy: AtomicU64,
    pub became_unhealthy: AtomicU64,
    /// Changes of health that an actor was too busy to hear of. They took effect all the same.
    pub unheard: AtomicU64,
    pub probe_successes: AtomicU64,
    pub probe_failures: AtomicU64,
}

/// The owner of an upstream's ring.
pub struct Upstream {
    slot: Slot,
    balancer: Arc<Balancer>,
    resolver: Resolver,
    counts: Arc<UpstreamCounts>,
    targets: Vec<(Destination, Resolution)>,
    /// What each target waits for: its time, or a lookup.
    waits: Vec<Option<SpawnHandle>>,
    rebuild: Option<SpawnHandle>,
}

impl Upstream {
    pub fn start(arbiter: &ArbiterHandle, slot: Slot, resolver: Resolver, counts: Arc<UpstreamCounts>) -> Supervised<Self> {
        supervise("upstream", arbiter, MAILBOX, move || Self {
            slot: slot.clone(),
            balancer: slot.load_full(),
            resolver: resolver.clone(),
            counts: counts.clone(),
            targets: Vec::new(),
            waits: Vec::new(),
            rebuild: None,
        })
    }

    /// Takes over the balancer of the present configuration.
    fn adopt(&mut self, ctx: &mut Context<Self>) {
        for wait in self.waits.drain(..).flatten().chain(self.rebuild.take()) {
            ctx.cancel_future(wait);
        }
        self.balancer = self.slot.load_full();
        self.targets = self.balancer.ring().places.iter().map(|place| (place.destination.clone(), place.resolution.clone())).collect();
        self.waits = vec![None; self.targets.len()];
        let named: Vec<usize> =
            self.targets.iter().enumerate().filter(|(_, (destination, _))| destination.named()).map(|(index, _)| index).collect();
        for index in named {
            self.schedule(index, ctx);
        }
    }

    fn schedule(&mut self, index: usize, ctx: &mut Context<Self>) {
        let Some((_, resolution)) = self.targets.get(index) else { return };
        let delay = match resolution {
            Resolution::Pending => Duration::ZERO,
            Resolution::Failed(_) => jittered(AFTER_FAILURE),
            Resolution::Found(resolved) if resolved.transient => jittered(TRANSIENT),
            Resolution::Found(resolved) => {
                // A little late, so that the answer has expired for sure.
                resolved.expires.saturating_duration_since(Instant::now()) + jittered(SOONEST)
            }
        };
        let wait = ctx.run_later(delay, move |actor, ctx| actor.renew(index, ctx));
        self.wait(index, wait);
    }

    fn renew(&mut self, index: usize, ctx: &mut Context<Self>) {
        let Some((destination, _)) = self.targets.get(index) else { return };
        let (resolver, host) = (self.resolver.clone(), destination.host.clone());
        let lookup = async move { resolver.renew(&host).await };
        let wait = ctx.spawn(lookup.into_actor(self).map(move |answer, actor, ctx| actor.resolved(index, answer, ctx)));
        self.wait(index, wait);
    }

    fn wait(&mut self, index: usize, handle: SpawnHandle) {
        if let Some(wait) = self.waits.get_mut(index) {
            *wait = Some(handle);
        }
    }

    fn resolved(&mut self, index: usize, answer: Answer, ctx: &mut Context<Self>) {
        let Some((_, resolution)) = self.targets.get_mut(index) else { return };
        let next = match answer {
            Ok(resolved) => Resolution::Found(resolved),
            Err(error) => Resolution::Failed(error),
        };
        let same = next.same(resolution);
        *resolution = next;
        if !same && self.rebuild.is_none() {
            self.rebuild = Some(ctx.run_later(GATHER, |actor, _| {
                actor.rebuild = None;
                actor.balancer.rebuild(actor.targets.clone(), Instant::now());
            }));
        }
        self.schedule(index, ctx);
    }
}

fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(1.0..1.1))
}

impl Actor for Upstream {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.adopt(ctx);
    }
}

/// The slot holds another balancer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Adopt;

impl Handler<Adopt> for Upstream {
    type Result = ();

    fn handle(&mut self, _: Adopt, ctx: &mut Self::Context) {
        self.adopt(ctx);
    }
}

/// The upstream is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

impl Handler<Stop> for Upstream {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// An address became available or unavailable.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Flipped(Flip);

impl Handler<Flipped> for Upstream {
    type Result = ();

    fn handle(&mut self, Flipped(flip): Flipped, _: &mut Self::Context) {
        let state = if flip.available { "healthy" } else { "unhealthy" };
        let counter = if flip.available { &self.counts.became_healthy } else { &self.counts.became_unhealthy };
        counter.fetch_add(1, Ordering::Relaxed);
        let Flip { upstream, address, .. } = flip;
        tracing::warn!(%upstream, target_host = %address.target, ip = %address.ip, port = address.port, state, "health of a target changed");
    }
}

/// Tells the actor of an upstream what requests and probes find out.
#[derive(Default)]
pub struct Ear {
    actor: OnceLock<Supervised<Upstream>>,
    counts: Arc<UpstreamCounts>,
}

impl Ear {
    pub fn new(counts: Arc<UpstreamCounts>) -> Self {
        Self { actor: OnceLock::new(), counts }
    }

    pub fn connect(&self, actor: Supervised<Upstream>) {
        let _ = self.actor.set(actor);
    }
}

impl Watcher for Ear {
    fn flipped(&self, flip: Flip) {
        let heard = self.actor.get().is_some_and(|actor| actor.address().try_send(Flipped(flip)).is_ok());
        if !heard {
            self.counts.unheard.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Makes an actor panic.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub struct Panic;

#[cfg(test)]
impl Handler<Panic> for Upstream {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to");
    }
}
