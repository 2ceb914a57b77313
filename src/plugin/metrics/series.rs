//! Counters with labels that workers share nothing of.
//!
//! Each thread has a table of its own; only that thread writes the counters in it, with plain loads and stores. A label set
//! that a thread has not seen before is entered, under a lock, in the list that a scrape goes through. Label sets whose route
//! or service is gone are retired by the scrape; threads forget them when they count next.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ahash::AHashMap;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::plugin::metrics::latency;

/// Label sets that are counted at most; what comes after is not counted under its own labels.
pub const LIMIT: usize = 50_000;

/// What tells label sets apart: rows by their ids, so that a row that is renamed is counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub route: Uuid,
    pub service: Uuid,
    /// Nil where consumers are not told apart.
    pub consumer: Uuid,
    pub what: What,
}

/// What is counted, and into how many numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// One number: requests with this status.
    Requests { status: u16, upstream: bool },
    /// Two: bytes in and out.
    Bandwidth,
    /// The buckets and sums of the latencies.
    Latency,
}

impl What {
    fn width(self) -> usize {
        match self {
            Self::Requests { .. } => 1,
            Self::Bandwidth => 2,
            Self::Latency => latency::WIDTH,
        }
    }
}

/// The counters of all label sets.
pub struct Series {
    /// Tells this one from others in the tables of threads.
    id: u64,
    limit: usize,
    known: Mutex<AHashMap<Key, Vec<Arc<Cell>>>>,
    /// Counts retirements.
    epoch: AtomicU64,
    refused: AtomicU64,
}

/// What one thread has counted of one label set.
pub struct Cell {
    retired: AtomicBool,
    values: Box<[AtomicU64]>,
}

impl Cell {
    /// Adds to one of the numbers. Called by the one thread that has the cell.
    pub fn add(&self, at: usize, n: u64) {
        if let Some(value) = self.values.get(at) {
            value.store(value.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }
}

/// A thread's cells; `None` for label sets that were refused.
struct Local {
    of: u64,
    epoch: u64,
    cells: AHashMap<Key, Option<Arc<Cell>>>,
}

thread_local! {
    /// The table of this thread, for the node that it works for.
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

impl Default for Series {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl Series {
    pub fn new(limit: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, limit, known: Mutex::default(), epoch: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// Counts for a label set.
    pub fn count(&self, key: Key, count: impl FnOnce(&Cell)) {
        LOCAL.with_borrow_mut(|local| {
            let local = self.local(local);
            if let Some(cell) = local.cells.get(&key) {
                return self.apply(cell.as_deref(), count);
            }
            // refused label sets are remembered too, so that they do not come to the lock again and again
            if local.cells.len() >= 2 * self.limit {
                return self.apply(None, count);
            }
            let cell = self.enter(key);
            self.apply(cell.as_deref(), count);
            local.cells.insert(key, cell);
        });
    }

    fn apply(&self, cell: Option<&Cell>, count: impl FnOnce(&Cell)) {
        match cell {
            Some(cell) => count(cell),
            None => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn local<'t>(&self, local: &'t mut Option<Local>) -> &'t mut Local {
        let epoch = self.epoch.load(Ordering::Acquire);
        let local = local.get_or_insert_with(|| Local { of: self.id, epoch, cells: AHashMap::new() });
        if local.of != self.id {
            *local = Local { of: self.id, epoch, cells: AHashMap::new() };
        } else if local.epoch != epoch {
            local.epoch = epoch;
            local.cells.retain(|_, cell| cell.as_ref().is_some_and(|cell| !cell.retired.load(Ordering::Relaxed)));
        }
        local
    }

    /// A cell for the present thread; `None` when there are too many label sets.
    fn enter(&self, key: Key) -> Option<Arc<Cell>> {
        let mut known = self.known.lock();
        if !known.contains_key(&key) && known.len() >= self.limit {
            return None;
        }
        let values = (0..key.what.width()).map(|_| AtomicU64::new(0)).collect();
        let cell = Arc::new(Cell { retired: AtomicBool::new(false), values });
        known.entry(key).or_default().push(Arc::clone(&cell));
        Some(cell)
    }

    /// The sums of all threads, label set by label set.
    pub fn sums(&self) -> Vec<(Key, Vec<u64>)> {
        let cells: Vec<_> = self.known.lock().iter().map(|(key, cells)| (*key, cells.clone())).collect();
        cells.into_iter().map(|(key, cells)| (key, sum(key, &cells))).collect()
    }

    /// Takes label sets out, and gives what they had counted.
    pub fn retire(&self, gone: &[Key]) -> Vec<(Key, Vec<u64>)> {
        if gone.is_empty() {
            return Vec::new();
        }
        let mut known = self.known.lock();
        let mut out = Vec::new();
        for key in gone {
            let cells = known.remove(key).unwrap_or_default();
            cells.iter().for_each(|cell| cell.retired.store(true, Ordering::Relaxed));
            out.push((*key, sum(*key, &cells)));
        }
        self.epoch.fetch_add(1, Ordering::Release);
        out
    }

    /// How many label sets there are.
    pub fn len(&self) -> usize {
        self.known.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About as many bytes as the counters take.
    pub fn bytes(&self) -> usize {
        let bytes = |(key, cells): (&Key, &Vec<Arc<Cell>>)| size_of::<Key>() + cells.len() * (size_of::<Cell>() + 8 * key.what.width());
        self.known.lock().iter().map(bytes).sum()
    }

    /// About as many bytes as the counters of one thread take at most.
    pub fn most_bytes(&self) -> usize {
        self.limit * (size_of::<Key>() + size_of::<Cell>() + 8 * What::Latency.width())
    }

    /// How often something was not counted because there were too many label sets.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

fn sum(key: Key, cells: &[Arc<Cell>]) -> Vec<u64> {
    let mut sums = vec![0_u64; key.what.width()];
    for (sum, at) in sums.iter_mut().zip(0..) {
        *sum = cells.iter().filter_map(|cell| cell.values.get(at)).fold(0, |all, value| all.wrapping_add(value.load(Ordering::Relaxed)));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u128) -> Key {
        Key { route: Uuid::from_u128(n), service: Uuid::nil(), consumer: Uuid::nil(), what: What::Bandwidth }
    }

    /// Numbers of routes, and what was counted for each.
    fn sorted(sums: Vec<(Key, Vec<u64>)>) -> Vec<(u128, Vec<u64>)> {
        let mut sums: Vec<_> = sums.into_iter().map(|(key, sums)| (key.route.as_u128(), sums)).collect();
        sums.sort_unstable();
        sums
    }

    #[test]
    fn threads_count_by_themselves() {
        let series = Series::default();
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let series = &series;
                threads.spawn(move || {
                    for n in 0..1000 {
                        series.count(key(n % 2), |cell| {
                            cell.add(0, 1);
                            cell.add(1, thread);
                        });
                    }
                });
            }
        });
        assert_eq!(sorted(series.sums()), [(0, vec![2000, 3000]), (1, vec![2000, 3000])]);
    }

    #[test]
    fn tables_of_two_are_not_mixed() {
        let (one, two) = (Series::default(), Series::default());
        for _ in 0..3 {
            one.count(key(1), |cell| cell.add(0, 1));
            two.count(key(1), |cell| cell.add(0, 10));
        }
        assert_eq!((sorted(one.sums()), sorted(two.sums())), (vec![(1, vec![3, 0])], vec![(1, vec![30, 0])]));
    }

    #[test]
    fn what_is_retired_starts_anew() {
        let series = Series::default();
        let count = |n: u128| series.count(key(n), |cell| cell.add(0, 1));
        count(1);
        count(1);
        count(2);
        assert_eq!(sorted(series.retire(&[key(1)])), [(1, vec![2, 0])]);
        assert_eq!(series.len(), 1);
        count(1);
        count(2);
        assert_eq!(sorted(series.sums()), [(1, vec![1, 0]), (2, vec![2, 0])]);
    }

    #[test]
    fn the_number_of_label_sets_is_bounded() {
        let series = Series::new(2);
        let count = |n: u128| series.count(key(n), |cell| cell.add(0, 1));
        (0..100).for_each(|_| (0..10).for_each(&count));
        assert_eq!(series.len(), 2);
        assert_eq!(series.refused(), 800);
        series.retire(&[key(0)]);
        count(7);
        assert_eq!(sorted(series.sums()), [(1, vec![100, 0]), (7, vec![1, 0])]);
    }
}
