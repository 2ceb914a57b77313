//! Active health checks of one upstream: probes on timers, and what they find out.
//!
//! Targets that are healthy are probed every `healthy.interval`, the others every `unhealthy.interval`, at most
//! `concurrency` at once; a round that is not over when the next is due makes that one fall out.
//!
//! An upstream with passive checks alone never gets a target back by itself, in Kong as here. Where the setting
//! `passive_recovery_interval` is not 0, its unhealthy targets are probed at that interval, in the way that `active` says,
//! and one that answers well is back at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use actix_rt::ArbiterHandle;
use arc_swap::ArcSwap;
use futures_util::{StreamExt, stream};
use rand::RngExt;

use super::probe::Probe;
use super::supervise::{Supervised, supervise};
use super::upstream::{Adopt, Slot, Stop, UpstreamCounts};
use crate::balancer::{Address, Balancer, Outcome};
use crate::model::Healthchecks;
use crate::snapshot::UpstreamTls;

const MAILBOX: usize = 16;

/// When and how an upstream's targets are probed.
pub struct Rounds {
    /// Every so often those that are healthy, those that are not, and those that passive checks took out.
    every: [Option<Duration>; 3],
    concurrency: usize,
    probe: Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Healthy,
    Unhealthy,
    /// Brings back what passive checks took out.
    Recovery,
}

const ROUNDS: [Round; 3] = [Round::Healthy, Round::Unhealthy, Round::Recovery];

impl Rounds {
    /// None when the upstream is not probed. `recovery` is the node's `passive_recovery_interval`.
    pub fn of(checks: &Healthchecks, recovery: Option<Duration>, tls: Option<Arc<UpstreamTls>>) -> Option<Self> {
        let every = |seconds: f64| (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.clamp(0.001, 65535.0)));
        let active = &checks.active;
        let passive = &checks.passive.unhealthy;
        let taken_out = passive.http_failures > 0 || passive.tcp_failures > 0 || passive.timeouts > 0;
        // Probes that count successes bring targets back already.
        let comes_back = active.unhealthy.interval > 0.0 && active.healthy.successes > 0;
        let recovery = recovery.filter(|time| taken_out && !comes_back && !time.is_zero());
        let every = [every(active.healthy.interval), every(active.unhealthy.interval), recovery];
        every.iter().any(Option::is_some).then(|| Self {
            every,
            concurrency: (active.concurrency as usize).clamp(1, 1024),
            probe: Probe::of(checks, tls),
        })
    }
}

/// Probes the targets of one upstream.
pub struct HealthChecker {
    slot: Slot,
    /// The rounds of the present configuration.
    plan: Arc<ArcSwap<Rounds>>,
    timers: [Option<(Duration, SpawnHandle)>; 3],
    under_way: [bool; 3],
    counts: Arc<UpstreamCounts>,
}

impl HealthChecker {
    pub fn start(arbiter: &ArbiterHandle, slot: Slot, plan: Arc<ArcSwap<Rounds>>, counts: Arc<UpstreamCounts>) -> Supervised<Self> {
        supervise("health checker", arbiter, MAILBOX, move || Self {
            slot: slot.clone(),
            plan: plan.clone(),
            timers: [None; 3],
            under_way: [false; 3],
            counts: counts.clone(),
        })
    }

    /// Sets the timers whose intervals have changed; the others go on, so that frequent changes do not keep probes away.
    fn set_timers(&mut self, ctx: &mut Context<Self>) {
        let rounds = self.plan.load_full();
        for (round, (every, timer)) in ROUNDS.into_iter().zip(rounds.every.into_iter().zip(&mut self.timers)) {
            if timer.map(|(every, _)| every) == every {
                continue;
            }
            if let Some((_, handle)) = timer.take() {
                ctx.cancel_future(handle);
            }
            *timer = every.map(|every| (every, later(round, every, ctx)));
        }
    }

    fn round(&mut self, round: Round, ctx: &mut Context<Self>) {
        let rounds = self.plan.load_full();
        let at = round as usize;
        if let Some(timer) = self.timers.get_mut(at) {
            *timer = rounds.every.get(at).copied().flatten().map(|every| (every, later(round, every, ctx)));
        }
        if self.under_way.get(at).copied().unwrap_or(true) {
            return;
        }
        let balancer = self.slot.load_full();
        let ring = balancer.ring();
        let due: Vec<Arc<Address>> = ring
            .places
            .iter()
            .flat_map(|place| &place.addresses)
            .filter(|address| address.weight > 0 && address.available() == (round == Round::Healthy))
            .cloned()
            .collect();
        if due.is_empty() {
            return;
        }
        self.set_under_way(round, true);
        let counts = self.counts.clone();
        let probes = async move {
            let probe = &rounds.probe;
            let asked = stream::iter(due).map(|address| async move { (probe.run(&address).await, address) });
            let mut answers = asked.buffer_unordered(rounds.concurrency);
            while let Some((outcome, address)) = answers.next().await {
                count(&counts, &balancer, &address, outcome);
                match round {
                    Round::Healthy | Round::Unhealthy => balancer.probed(&address, outcome),
                    Round::Recovery => balancer.tried_again(&address, outcome),
                }
            }
        };
        ctx.spawn(probes.into_actor(self).map(move |(), actor, _| actor.set_under_way(round, false)));
    }

    fn set_under_way(&mut self, round: Round, under_way: bool) {
        if let Some(flag) = self.under_way.get_mut(round as usize) {
            *flag = under_way;
        }
    }
}

fn later(round: Round, every: Duration, ctx: &mut Context<HealthChecker>) -> SpawnHandle {
    ctx.run_later(every.mul_f64(rand::rng().random_range(1.0..1.05)), move |actor, ctx| actor.round(round, ctx))
}

fn count(counts: &UpstreamCounts, balancer: &Balancer, address: &Address, outcome: Outcome) {
    let good = balancer.policy.checks.active.good(outcome);
    let (ours, all) = match good {
        true => (&address.vitals.probes.successes, &counts.probe_successes),
        false => (&address.vitals.probes.failures, &counts.probe_failures),
    };
    ours.fetch_add(1, Ordering::Relaxed);
    all.fetch_add(1, Ordering::Relaxed);
}

impl Actor for HealthChecker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.set_timers(ctx);
    }
}

impl Handler<Adopt> for HealthChecker {
    type Result = ();

    fn handle(&mut self, _: Adopt, ctx: &mut Self::Context) {
        self.set_timers(ctx);
    }
}

impl Handler<Stop> for HealthChecker {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[cfg(test)]
impl Handler<super::upstream::Panic> for HealthChecker {
    type Result = ();

    fn handle(&mut self, _: super::upstream::Panic, _: &mut Self::Context) {
        panic!("asked to");
    }
}
