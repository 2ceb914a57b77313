//! The addresses of an upstream at one time, and how one is chosen among them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use xxhash_rust::xxh32::xxh32;

use super::NoPeer;
use super::address::{Address, Peer, PeerId, Vitals};
use super::dns::{self, RecordType};
use super::policy::{Algorithm, Destination, Policy, Resolution};
use super::shares::Shares;

/// A target and its addresses.
#[derive(Debug)]
pub struct Place {
    pub destination: Destination,
    pub resolution: Resolution,
    /// Also those of weight 0.
    pub addresses: Vec<Arc<Address>>,
}

/// The addresses of an upstream. Immutable but for the view and the place where round-robin stands.
pub struct Ring {
    pub places: Vec<Place>,
    /// Addresses that have weight, in an order that does not depend on that of the rows.
    addresses: Box<[Arc<Address>]>,
    view: ArcSwap<View>,
    turn: AtomicU64,
    /// Hash and index of an address, by hash.
    points: Box<[(u32, u32)]>,
    /// Whether some name has not been resolved yet.
    pub pending: bool,
}

/// What of a ring is available, as of one epoch of health.
struct View {
    epoch: u64,
    /// Whether enough weight is available.
    healthy: bool,
    /// Indexes of available addresses.
    available: Box<[usize]>,
    shares: Shares,
}

/// What outlives the rings of an upstream: the vitals of its addresses, and a count of their changes of state.
#[derive(Default)]
pub struct Memory {
    epoch: AtomicU64,
    vitals: Mutex<HashMap<VitalsKey, Known>>,
}

/// Target name, address, port.
type VitalsKey = (Arc<str>, Arc<str>, u16);

struct Known {
    vitals: Arc<Vitals>,
    /// When a ring without it was built.
    gone: Option<Instant>,
}

/// How long the state of an address is kept after it was removed.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// Points of an address on the ring of consistent-hashing, when all weigh the same.
const POINTS: usize = 160;
const FEWEST_SLOTS: usize = 1000;

impl Memory {
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// An address has become available or unavailable.
    pub fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets all states: the upstream has no health checks.
    pub fn clear(&self) {
        for known in self.vitals.lock().values() {
            known.vitals.set(true);
        }
        self.changed();
    }
}

impl Ring {
    /// The ring of these targets. Addresses that were there before keep their state.
    pub fn build(policy: &Policy, destinations: Vec<(Destination, Resolution)>, memory: &Memory, now: Instant) -> Self {
        let mut known = memory.vitals.lock();
        for entry in known.values_mut() {
            entry.gone.get_or_insert(now);
        }
        known.retain(|_, entry| entry.gone.is_none_or(|gone| now.saturating_duration_since(gone) < FORGET_AFTER));
        let mut fresh = Vec::new();
        let mut vitals = |key: VitalsKey| {
            let known = known.entry(key).or_insert_with(|| {
                let vitals = Arc::new(Vitals::default());
                fresh.push(vitals.clone());
                Known { vitals, gone: None }
            });
            known.gone = None;
            known.vitals.clone()
        };
        let pending = destinations.iter().any(|(_, resolution)| matches!(resolution, Resolution::Pending));
        let places: Vec<Place> = destinations
            .into_iter()
            .map(|(destination, resolution)| {
                let addresses = addresses(policy, &destination, &resolution, &mut vitals);
                Place { destination, resolution, addresses }
            })
            .collect();
        drop(known);

        let mut all: Vec<Arc<Address>> =
            places.iter().flat_map(|place| &place.addresses).filter(|address| address.weight > 0).cloned().collect();
        all.sort_by(|a, b| (&a.target, &a.ip, a.port).cmp(&(&b.target, &b.ip, b.port)));
        start_averages(&all, &fresh, now);
        let targets = places.iter().filter(|place| place.addresses.iter().any(|address| address.weight > 0)).count();
        let points = match policy.algorithm {
            Algorithm::ConsistentHashing => points(&all, targets, policy.slots),
            _ => Box::default(),
        };
        let view = ArcSwap::from_pointee(View::of(&all, policy.checks.threshold, memory.epoch()));
        Self { places, addresses: all.into_boxed_slice(), view, turn: AtomicU64::new(0), points, pending }
    }

    /// Weight of all addresses, and of those that are not available.
    pub fn weights(&self) -> (u64, u64) {
        weights(&self.addresses)
    }

    /// Whether enough weight is available.
    pub fn healthy(&self, policy: &Policy, memory: &Memory) -> bool {
        self.view(policy, memory).healthy
    }

    /// Chooses an address. `tried` are those that failed this request.
    pub fn pick(&self, policy: &Policy, memory: &Memory, hash: u32, tried: &[PeerId], now: Instant) -> Result<Peer, NoPeer> {
        let view = self.view(policy, memory);
        if self.pending && view.available.is_empty() {
            return Err(NoPeer::Resolving);
        }
        if !view.healthy {
            return Err(NoPeer::Unhealthy);
        }
        let index = match policy.algorithm {
            Algorithm::RoundRobin => self.next_in_turn(&view, tried),
            Algorithm::ConsistentHashing => self.nearest(&view, hash, tried),
            Algorithm::LeastConnections => self.least_busy(&view, tried),
            Algorithm::Latency => self.fastest(&view, tried, now),
        };
        let address = index.and_then(|index| self.addresses.get(index)).ok_or(NoPeer::NoneLeft)?;
        let addr = address.socket_address().ok_or(NoPeer::NoneLeft)?;
        Ok(Peer::new(address.clone(), addr, policy.algorithm == Algorithm::LeastConnections))
    }

    fn next_in_turn(&self, view: &View, tried: &[PeerId]) -> Option<usize> {
        let turn = || view.shares.at(self.turn.fetch_add(1, Ordering::Relaxed)).and_then(|at| view.available.get(at).copied());
        let first = turn()?;
        if tried.is_empty() || !self.was_tried(first, tried) {
            return Some(first);
        }
        // The following turns are likely to be another's; if they are not, by weight among those that are left.
        for _ in 0..2 {
            let next = turn()?;
            if !self.was_tried(next, tried) {
                return Some(next);
            }
        }
        let left = self.left(view, tried);
        if left.is_empty() {
            return Some(first);
        }
        let shares = Shares::new(left.iter().map(|index| self.weight(*index)));
        shares.at(self.turn.load(Ordering::Relaxed)).and_then(|at| left.get(at).copied())
    }

    /// The address that the next point on the ring belongs to; when that one is not available, of the points after it.
    fn nearest(&self, view: &View, hash: u32, tried: &[PeerId]) -> Option<usize> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        let all_tried = !tried.is_empty() && self.left(view, tried).is_empty();
        let (before, after) = self.points.split_at(start);
        after.iter().chain(before).map(|(_, index)| *index as usize).find(|index| {
            let available = self.addresses.get(*index).is_some_and(|address| address.available());
            available && (all_tried || tried.is_empty() || !self.was_tried(*index, tried))
        })
    }

    fn least_busy(&self, view: &View, tried: &[PeerId]) -> Option<usize> {
        let load = |index: usize| {
            let address = self.addresses.get(index)?;
            Some((f64::from(address.vitals.connections()) + 1.0) / f64::from(address.weight))
        };
        // The first of equals wins, so every search starts elsewhere.
        let start = self.turn.fetch_add(1, Ordering::Relaxed) as usize % view.available.len().max(1);
        let (before, after) = view.available.split_at(start);
        let mut best: Option<(f64, usize)> = None;
        let mut best_tried: Option<(f64, usize)> = None;
        for index in after.iter().chain(before).copied() {
            let load = load(index)?;
            let best = if !tried.is_empty() && self.was_tried(index, tried) { &mut best_tried } else { &mut best };
            if best.is_none_or(|(lowest, _)| load < lowest) {
                *best = Some((load, index));
            }
        }
        best.or(best_tried).map(|(_, index)| index)
    }

    /// The better of two that are drawn. Where there is a choice, those that failed are out of it.
    fn fastest(&self, view: &View, tried: &[PeerId], now: Instant) -> Option<usize> {
        let left;
        let candidates = if tried.is_empty() || view.available.len() == 1 {
            &*view.available
        } else {
            left = self.left(view, tried);
            &left
        };
        let draw = |below: usize| rand::random_range(0..below);
        let (a, b) = match candidates.len() {
            0 => return None,
            1 => return candidates.first().copied(),
            2 => {
                if rand::random() {
                    (0, 1)
                } else {
                    (1, 0)
                }
            }
            n => {
                let a = draw(n);
                (a, (a + 1 + draw(n - 1)) % n)
            }
        };
        let score = |at: usize| {
            let index = *candidates.get(at)?;
            let address = self.addresses.get(index)?;
            Some((address.vitals.latency(now) / f64::from(address.weight), index))
        };
        let (a, b) = (score(a)?, score(b)?);
        Some(if b.0 < a.0 { b.1 } else { a.1 })
    }

    fn was_tried(&self, index: usize, tried: &[PeerId]) -> bool {
        self.addresses.get(index).is_some_and(|address| tried.contains(&address.id()))
    }

    fn left(&self, view: &View, tried: &[PeerId]) -> Vec<usize> {
        view.available.iter().copied().filter(|index| !self.was_tried(*index, tried)).collect()
    }

    fn weight(&self, index: usize) -> u32 {
        self.addresses.get(index).map_or(0, |address| address.weight)
    }

    /// The view of the present epoch; made anew by the first request after a change of state.
    fn view(&self, policy: &Policy, memory: &Memory) -> arc_swap::Guard<Arc<View>> {
        let view = self.view.load();
        // Read before the states are, so that a change in between shows at the next request.
        let epoch = memory.epoch();
        if view.epoch == epoch {
            return view;
        }
        self.view.store(Arc::new(View::of(&self.addresses, policy.checks.threshold, epoch)));
        self.view.load()
    }
}

impl View {
    fn of(addresses: &[Arc<Address>], threshold: f64, epoch: u64) -> Self {
        let available: Box<[usize]> =
            addresses.iter().enumerate().filter(|(_, address)| address.available()).map(|(index, _)| index).collect();
        let shares = Shares::new(available.iter().map(|index| addresses.get(*index).map_or(0, |address| address.weight)));
        let (total, unavailable) = weights(addresses);
        let healthy = total > 0 && (total - unavailable) as f64 / total as f64 * 100.0 > threshold;
        Self { epoch, healthy, available, shares }
    }
}

fn weights(addresses: &[Arc<Address>]) -> (u64, u64) {
    addresses.iter().fold((0, 0), |(total, unavailable), address| {
        let weight = u64::from(address.weight);
        (total + weight, if address.available() { unavailable } else { unavailable + weight })
    })
}

/// The addresses of a target.
fn addresses(
    policy: &Policy,
    destination: &Destination,
    resolution: &Resolution,
    vitals: &mut impl FnMut(VitalsKey) -> Arc<Vitals>,
) -> Vec<Arc<Address>> {
    let literal = dns::literal(&destination.host).is_some();
    let Resolution::Found(resolved) = resolution else { return Vec::new() };
    let mut make = |ip: Arc<str>, port: u16, weight: u32, ips: Box<[std::net::IpAddr]>, host: Option<&Arc<str>>| {
        let host = policy.host_header.as_ref().or(host).unwrap_or(&destination.host).clone();
        let vitals = vitals((destination.host.clone(), ip.clone(), port));
        Address::new(ip, port, weight, destination.host.clone(), ips, host, vitals)
    };
    if resolved.transient && !literal {
        let ips = resolved.records.iter().flat_map(|record| record.addresses.iter().copied()).collect();
        let mut address = make(destination.host.clone(), destination.port, destination.weight, ips, None);
        address.transient = true;
        return vec![Arc::new(address)];
    }
    let mut addresses = Vec::new();
    for record in &resolved.records {
        let port = record.port.unwrap_or(destination.port);
        match (resolved.kind, &record.target) {
            // An SRV record is one address, whatever its target resolves to.
            (RecordType::Srv, Some(target)) => {
                let weight = if destination.weight > 0 { record.weight } else { 0 };
                let host = Some(target).filter(|_| policy.use_srv_name);
                addresses.push(Arc::new(make(target.clone(), port, weight, record.addresses.clone(), host)));
            }
            _ => {
                let ips = record.addresses.iter();
                addresses.extend(ips.map(|ip| Arc::new(make(shown(*ip), port, destination.weight, [*ip].into(), None))));
            }
        }
    }
    addresses.sort_by(|a, b| (&a.ip, a.port).cmp(&(&b.ip, b.port)));
    addresses.dedup_by(|a, b| a.ip == b.ip && a.port == b.port);
    addresses
}

/// An address as Kong writes it: IPv6 in brackets.
fn shown(ip: std::net::IpAddr) -> Arc<str> {
    match ip {
        std::net::IpAddr::V4(ip) => ip.to_string().into(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]").into(),
    }
}

/// New addresses start at the average latency of those that are known.
fn start_averages(all: &[Arc<Address>], fresh: &[Arc<Vitals>], now: Instant) {
    let is_fresh = |address: &&Arc<Address>| fresh.iter().any(|vitals| Arc::ptr_eq(vitals, &address.vitals));
    let old: Vec<f64> =
        all.iter().filter(|address| address.available() && !is_fresh(address)).map(|address| address.vitals.latency(now)).collect();
    if old.is_empty() {
        return;
    }
    let average = old.iter().sum::<f64>() / old.len() as f64;
    for vitals in fresh {
        vitals.start_at(average, now);
    }
}

/// Points on the ring: for each address in proportion to its weight, and the same on every node. A point depends on its
/// address alone, so that one that goes leaves those of the others where they are.
fn points(addresses: &[Arc<Address>], targets: usize, slots: usize) -> Box<[(u32, u32)]> {
    let (total, _) = weights(addresses);
    let budget = (targets * POINTS).min(slots.max(FEWEST_SLOTS)) as f64;
    let mut points = Vec::with_capacity(budget as usize + addresses.len());
    for (index, address) in addresses.iter().enumerate() {
        let share = f64::from(address.weight) / total.max(1) as f64;
        let count = (share * budget).floor().max(1.0) as u32;
        for point in 1..=count {
            let name = format!("{}:{} {point}", address.ip, address.port);
            points.push((xxh32(name.as_bytes(), 0), index as u32));
        }
    }
    points.sort_unstable();
    points.into_boxed_slice()
}
