//! Limits that the nodes share, over the leases of the cluster: what plugins spend from is found here without asking the leases.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cluster::lease::{Decision, Grant, Name, Window as Leased};
use cluster::{LeaseHandle, LeaseStats};
use parking_lot::{Mutex, RwLock};

use crate::plugin::counters::{AsIs, Key, Moment};
use crate::plugin::quota::{Asked, Outcome, Quota, Want, Window};

/// Shards of the table: enough that workers seldom meet.
const SHARDS: usize = 64;
/// Windows in a shard. When there are more it is emptied: the leases have them all.
const MOST: usize = 4096;
/// Time between two lines about the same trouble.
const SELDOM: Duration = Duration::from_secs(10);

type Shard = HashMap<Key, Arc<Grant>, BuildHasherDefault<AsIs>>;

/// What this node has been given of limits, by the keys of its plugins.
pub struct SharedLimits {
    leases: LeaseHandle,
    grants: Box<[RwLock<Shard>]>,
    passed: AtomicU64,
    unanswered: Mutex<Trouble>,
    crowded: Mutex<Trouble>,
}

/// When it was last told of, and how often it has come since.
#[derive(Default)]
struct Trouble {
    told: Option<Instant>,
    silent: u64,
}

impl Trouble {
    /// Whether it is to be told of, and how many times it was not.
    fn tell(&mut self) -> Option<u64> {
        if self.told.is_some_and(|told| told.elapsed() < SELDOM) {
            self.silent += 1;
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.silent))
    }
}

/// How limits across nodes go, on this node.
pub struct LimitStats {
    pub leases: LeaseStats,
    /// Requests that passed because an owner had not answered.
    pub passed: u64,
}

impl SharedLimits {
    pub fn new(leases: LeaseHandle) -> Self {
        let grants = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { leases, grants, passed: AtomicU64::new(0), unanswered: Mutex::default(), crowded: Mutex::default() }
    }

    fn shard(&self, key: Key) -> &RwLock<Shard> {
        &self.grants[key.shard_of(SHARDS)]
    }

    /// Finds the window's grant where [`Quota::attempt`] looks for it.
    fn open(&self, key: Key, window: &Leased) -> Option<Arc<Grant>> {
        let grant = self.leases.grant(window)?;
        let mut shard = self.shard(key).write();
        if shard.len() >= MOST && !shard.contains_key(&key) {
            shard.clear();
        }
        shard.insert(key, grant.clone());
        Some(grant)
    }

    /// Takes out windows that are over.
    pub fn sweep(&self) {
        let now = Moment::from(SystemTime::now());
        for shard in &self.grants {
            let mut shard = shard.write();
            shard.retain(|_, grant| grant.window.until > now.0);
            if shard.capacity() > 64 && shard.len() * 4 < shard.capacity() {
                shard.shrink_to_fit();
            }
        }
    }

    pub fn stats(&self) -> LimitStats {
        LimitStats { leases: self.leases.stats(), passed: self.passed.load(Ordering::Relaxed) }
    }

    fn told(&self, decision: Decision) -> Outcome {
        if decision == Decision::Full {
            if let Some(others) = self.crowded.lock().tell() {
                tracing::warn!(others, "too many windows of limits are in use, new ones are counted by this node alone");
            }
            return Outcome::Crowded;
        }
        if let Some(others) = self.unanswered.lock().tell() {
            tracing::warn!(others, "the owner of a limit does not answer in time");
        }
        Outcome::Unknown
    }
}

fn leased(window: Window) -> Leased {
    Leased { name: Name(window.name), limit: window.limit, since: window.since.0, until: window.until.0 }
}

impl Quota for SharedLimits {
    fn attempt(&self, key: Key, limit: u64, want: Want, now: Moment) -> Outcome {
        let shard = self.shard(key).read();
        let Some(grant) = shard.get(&key).filter(|grant| grant.window.limit == limit) else { return Outcome::Unknown };
        let spent = match want {
            Want::Spend => grant.try_spend(1),
            Want::Know => grant.has(1).then_some(false),
        };
        let left = grant.left();
        match spent {
            Some(false) => Outcome::Left(left),
            Some(true) => {
                let name = grant.window.name;
                drop(shard);
                self.leases.refill(name);
                Outcome::Left(left)
            }
            None if grant.is_used_up(now.0) => Outcome::UsedUp(left.min(0)),
            None => Outcome::Unknown,
        }
    }

    fn ask(&self, key: Key, window: Window, want: Want, patience: Duration) -> Asked<'_> {
        Box::pin(async move {
            let window = leased(window);
            let Some(grant) = self.open(key, &window) else { return self.told(Decision::Full) };
            let decision = match want {
                Want::Spend => self.leases.spend(&window, 1, patience).await,
                Want::Know => self.leases.ensure(&window, 1, patience).await,
            };
            match decision {
                Decision::Allowed => Outcome::Left(grant.left().max(if want == Want::Know { 1 } else { 0 })),
                Decision::Refused => Outcome::UsedUp(grant.left().min(0)),
                Decision::Wait | Decision::Unanswered | Decision::Full => self.told(decision),
            }
        })
    }

    fn give_back(&self, key: Key) {
        if let Some(grant) = self.shard(key).read().get(&key) {
            grant.give_back(1);
        }
    }

    fn left(&self, key: Key) -> Option<i64> {
        self.shard(key).read().get(&key).map(|grant| grant.left())
    }

    fn charge(&self, key: Key, cost: i64) {
        let grant = self.shard(key).read().get(&key).cloned();
        let Some(grant) = grant else { return };
        match u64::try_from(cost).ok().and_then(|cost| grant.try_spend(cost)) {
            Some(false) => {}
            Some(true) => self.leases.refill(grant.window.name),
            None => self.leases.charge(&grant.window, cost),
        }
    }

    fn nodes(&self) -> usize {
        self.leases.nodes()
    }

    fn passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
