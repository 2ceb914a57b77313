//! All upstreams of a node: brings their balancers and actors to what the catalog says, and knows their health.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_rt::ArbiterHandle;
use ahash::AHashMap;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use uuid::Uuid;

use super::health_checker::{HealthChecker, Rounds};
use super::supervise::Supervised;
use super::upstream::{Adopt, Ear, Slot, Stop, Upstream, UpstreamCounts};
use crate::balancer::ring::{Memory, Place};
use crate::balancer::{Address, Balancer, Destination, Policy, Resolution, Resolver};
use crate::catalog::{Catalog, Row};
use crate::model;
use crate::plugin::health::{Health, Seen, Totals};
use crate::snapshot::upstream_tls::Terms;
use crate::snapshot::{UpstreamTls, client_pair};

/// The balancers of a configuration, by the names of their upstreams.
pub type Balancers = Arc<AHashMap<Arc<str>, Arc<Balancer>>>;

/// The upstreams of a node. Cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    shared: Arc<Shared>,
}

struct Shared {
    arbiter: ArbiterHandle,
    resolver: Resolver,
    /// `passive_recovery_interval`
    recovery: Option<Duration>,
    counts: Arc<UpstreamCounts>,
    present: Mutex<Present>,
}

/// What the last configuration made.
#[derive(Default)]
struct Present {
    /// The catalog that it was.
    catalog: Option<Catalog>,
    by_id: HashMap<Uuid, Known>,
    by_name: Balancers,
}

/// An upstream and what was made of it.
struct Known {
    row: Arc<Row>,
    targets: Vec<Arc<Row>>,
    certificate: Option<Arc<Row>>,
    slot: Slot,
    memory: Arc<Memory>,
    ear: Arc<Ear>,
    actor: Supervised<Upstream>,
    checker: Option<(Supervised<HealthChecker>, Arc<ArcSwap<Rounds>>)>,
}

/// The rows of an upstream in a catalog.
struct Rows {
    row: Arc<Row>,
    typed: Arc<model::Upstream>,
    targets: Vec<Arc<Row>>,
    certificate: Option<Arc<Row>>,
}

impl Upstreams {
    /// `recovery` is the setting `passive_recovery_interval`; none when it is 0.
    pub fn new(arbiter: ArbiterHandle, resolver: Resolver, recovery: Option<Duration>) -> Self {
        Self { shared: Arc::new(Shared { arbiter, resolver, recovery, counts: Arc::default(), present: Mutex::default() }) }
    }

    pub fn counts(&self) -> &UpstreamCounts {
        &self.shared.counts
    }

    /// Brings everything to what the catalog says, and answers with the balancers for the snapshot. An upstream of which no
    /// row has changed keeps its balancer; a row that cannot be read is left out and blocks no other.
    pub fn reconcile(&self, catalog: &Catalog) -> Balancers {
        let mut present = self.shared.present.lock();
        if let Some(last) = present.catalog.replace(catalog.clone())
            && ["upstreams", "targets", "certificates"].iter().all(|entity| last.same_rows(catalog, entity))
        {
            return present.by_name.clone();
        }
        let mut before = std::mem::take(&mut present.by_id);
        let mut changed = false;
        for row in catalog.rows("upstreams") {
            let Some(rows) = Rows::of(row, catalog) else {
                tracing::error!(upstream = %row.id, "an upstream that cannot be read is left out");
                continue;
            };
            let known = match before.remove(&row.id) {
                Some(known) if known.is(&rows) => known,
                Some(known) => {
                    changed = true;
                    self.change(known, rows, catalog)
                }
                None => {
                    changed = true;
                    self.create(rows, catalog)
                }
            };
            present.by_id.insert(row.id, known);
        }
        changed |= !before.is_empty();
        for known in before.into_values() {
            known.stop();
        }
        if changed {
            let balancers = present.by_id.values().map(|known| known.slot.load_full());
            present.by_name = Arc::new(balancers.map(|balancer| (balancer.policy.name.clone(), balancer)).collect());
        }
        present.by_name.clone()
    }

    /// The balancer of an upstream.
    pub fn balancer(&self, upstream: Uuid) -> Option<Arc<Balancer>> {
        Some(self.shared.present.lock().by_id.get(&upstream)?.slot.load_full())
    }

    /// The balancers of all upstreams.
    pub fn balancers(&self) -> Balancers {
        self.shared.present.lock().by_name.clone()
    }

    fn create(&self, rows: Rows, catalog: &Catalog) -> Known {
        let Shared { arbiter, resolver, counts, .. } = &*self.shared;
        let ear = Arc::new(Ear::new(counts.clone()));
        let memory = Arc::new(Memory::default());
        let slot: Slot = Arc::new(ArcSwap::new(self.build(&rows, &memory, &ear)));
        let actor = Upstream::start(arbiter, slot.clone(), resolver.clone(), counts.clone());
        ear.connect(actor.clone());
        let checker = self.rounds(&rows, catalog).map(|rounds| self.checker(rounds, &slot));
        let Rows { row, targets, certificate, .. } = rows;
        Known { row, targets, certificate, slot, memory, ear, actor, checker }
    }

    fn change(&self, mut known: Known, rows: Rows, catalog: &Catalog) -> Known {
        let balancer = self.build(&rows, &known.memory, &known.ear);
        if !balancer.policy.checks.on {
            known.memory.clear();
        }
        known.slot.store(balancer);
        known.actor.address().do_send(Adopt);
        known.checker = match (known.checker.take(), self.rounds(&rows, catalog)) {
            (Some((checker, plan)), Some(rounds)) => {
                plan.store(Arc::new(rounds));
                checker.address().do_send(Adopt);
                Some((checker, plan))
            }
            (Some((checker, _)), None) => {
                checker.address().do_send(Stop);
                None
            }
            (None, rounds) => rounds.map(|rounds| self.checker(rounds, &known.slot)),
        };
        let Rows { row, targets, certificate, .. } = rows;
        Known { row, targets, certificate, ..known }
    }

    fn build(&self, rows: &Rows, memory: &Arc<Memory>, ear: &Arc<Ear>) -> Arc<Balancer> {
        let mut targets: Vec<Arc<model::Target>> = rows.targets.iter().filter_map(|row| row.typed()).collect();
        targets.sort_by(|a, b| a.created_at.total_cmp(&b.created_at).then(a.id.cmp(&b.id)));
        let destinations = targets.iter().map(|target| Destination::of(target)).collect();
        let policy = Policy::of(&rows.typed);
        let resolver = self.shared.resolver.clone();
        Arc::new(Balancer::new(policy, destinations, memory.clone(), resolver, Some(ear.clone()), Instant::now()))
    }

    fn rounds(&self, rows: &Rows, catalog: &Catalog) -> Option<Rounds> {
        let checks = &rows.typed.healthchecks;
        let verify = checks.active.https_verify_certificate;
        let client = rows.certificate.as_ref().and_then(|row| client_pair(catalog, row.id));
        let tls = client.and_then(|client| UpstreamTls::new(Terms { verify, client: Some(client), ..Terms::default() }).ok());
        Rounds::of(checks, self.shared.recovery, tls.map(Arc::new))
    }

    fn checker(&self, rounds: Rounds, slot: &Slot) -> (Supervised<HealthChecker>, Arc<ArcSwap<Rounds>>) {
        let plan = Arc::new(ArcSwap::from_pointee(rounds));
        (HealthChecker::start(&self.shared.arbiter, slot.clone(), plan.clone(), self.shared.counts.clone()), plan)
    }
}

impl Rows {
    fn of(row: &Arc<Row>, catalog: &Catalog) -> Option<Self> {
        let typed = row.typed::<model::Upstream>()?;
        let targets = catalog.children("targets", "upstream", row.id).cloned().collect();
        let certificate = typed.client_certificate.as_ref().and_then(|parent| catalog.get("certificates", &parent.id)).cloned();
        Some(Self { row: row.clone(), typed, targets, certificate })
    }
}

impl Known {
    /// Whether it was made of these very rows.
    fn is(&self, rows: &Rows) -> bool {
        let same = |a: &[Arc<Row>], b: &[Arc<Row>]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b));
        Arc::ptr_eq(&self.row, &rows.row)
            && same(&self.targets, &rows.targets)
            && same(self.certificate.as_slice(), rows.certificate.as_slice())
    }

    fn stop(self) {
        self.actor.address().do_send(Stop);
        if let Some((checker, _)) = self.checker {
            checker.address().do_send(Stop);
        }
    }
}

/// The health of a target or an address, as the Admin API and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Healthy,
    Unhealthy,
    ChecksOff,
    DnsError,
}

impl Upstreams {
    /// Sets the health of addresses until checks or another call change it. False when the target has none of that name, or
    /// none yet.
    pub fn set_health(&self, which: &Which, healthy: bool) -> Result<bool, NoHealthChecker> {
        let balancer = self.balancer(which.upstream).filter(|balancer| balancer.policy.checks.on).ok_or(NoHealthChecker)?;
        let ring = balancer.ring();
        let Some(place) = ring.places.iter().find(|place| place.destination.id == which.target) else { return Ok(false) };
        let meant = |name: &String, address: &Address| *address.ip == **name || format!("{}:{}", address.ip, address.port) == *name;
        let mut found = false;
        for address in place.addresses.iter().filter(|address| which.address.as_ref().is_none_or(|name| meant(name, address))) {
            found |= balancer.set_health(&place.destination.target, Some((&address.ip, address.port)), healthy);
        }
        Ok(found)
    }
}

/// Which addresses to set the health of.
#[derive(Clone, Debug)]
pub struct Which {
    pub upstream: Uuid,
    pub target: Uuid,
    /// `ip` or `ip:port`; all addresses of the target when absent.
    pub address: Option<String>,
}

impl Health for Upstreams {
    fn each(&self, visit: &mut dyn FnMut(&Seen<'_>)) {
        for (name, balancer) in self.balancers().iter() {
            for place in &balancer.ring().places {
                let mut show = |address: &str, state: Shown| {
                    visit(&Seen { upstream: name, target: &place.destination.target, address, state: state.name() });
                };
                if place.addresses.is_empty() {
                    show("", Shown::DnsError);
                }
                for address in &place.addresses {
                    show(&format!("{}:{}", address.ip, address.port), address_health(balancer, place, address));
                }
            }
        }
    }

    fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (counts, dns) = (self.counts(), self.shared.resolver.counts());
        Totals {
            probe_successes: read(&counts.probe_successes),
            probe_failures: read(&counts.probe_failures),
            became_healthy: read(&counts.became_healthy),
            became_unhealthy: read(&counts.became_unhealthy),
            dns_requests: read(&dns.requests),
            dns_misses: read(&dns.misses),
            dns_stale: read(&dns.stale),
            dns_failures: read(&dns.failures),
        }
    }
}

impl Shown {
    /// As metrics name it.
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::ChecksOff => "healthchecks_off",
            Self::DnsError => "dns_error",
        }
    }
}

/// The upstream has no health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no healthchecker found")]
pub struct NoHealthChecker;

/// The health of one address.
pub fn address_health(balancer: &Balancer, place: &Place, address: &Address) -> Shown {
    match balancer.policy.checks.on && place.destination.weight > 0 {
        false => Shown::ChecksOff,
        true if address.available() => Shown::Healthy,
        true => Shown::Unhealthy,
    }
}

/// The health of a target: that of its best address.
pub fn target_health(balancer: &Balancer, place: &Place) -> Shown {
    let mut states = place.addresses.iter().map(|address| address_health(balancer, place, address));
    match states.next() {
        None => Shown::DnsError,
        Some(Shown::Unhealthy) if states.any(|state| state == Shown::Healthy) => Shown::Healthy,
        Some(first) => first,
    }
}

/// Where a target's addresses come from, in Kong's words.
pub fn dns_source(place: &Place) -> String {
    match &place.resolution {
        Resolution::Pending => "unknown".to_owned(),
        Resolution::Failed(error) => error.to_string(),
        Resolution::Found(resolved) if resolved.transient => "ttl=0, virtual SRV".to_owned(),
        Resolution::Found(resolved) => resolved.kind.name().to_owned(),
    }
}

#[cfg(test)]
mod tests;
