//! Counters of fixed windows, shared by all workers.
//!
//! A key has one counter for each [`Period`]; a counter is one atomic that holds the window it belongs to and the count in
//! it, so that a window begins anew without anybody clearing it. Workers find a key in a sharded table and spend on its
//! atomics. The table's owner, `actors::rate_limits`, sweeps what has expired; the number of keys is bounded by itself: a
//! shard keeps two generations, and when the younger is full the older is dropped, less what was used since.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::RwLock;
use time::OffsetDateTime;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// Shards of the table: enough that workers seldom meet and that sweeping one is short.
const SHARDS: usize = 256;
/// Keys in a generation of a shard; there are two generations.
const GENERATION: usize = 1024;

/// A fixed window of the UTC calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

impl Period {
    /// All periods, the shortest first.
    pub const ALL: [Self; 6] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Month, Self::Year];

    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        ["second", "minute", "hour", "day", "month", "year"][self as usize]
    }

    /// As header names write it.
    pub fn title(self) -> &'static str {
        ["Second", "Minute", "Hour", "Day", "Month", "Year"][self as usize]
    }

    /// Nominal length in seconds: 30 days for a month, 365 for a year.
    pub fn seconds(self) -> u64 {
        [1, 60, 3600, 86_400, 2_592_000, 31_536_000][self as usize]
    }
}

/// One value for each period.
pub type Periods<T> = [T; 6];

/// A moment, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }
}

impl Moment {
    /// The number of the window of this period: one more for each next window.
    fn window(self, period: Period) -> u64 {
        match period {
            Period::Month => {
                let date = self.date();
                date.year() as u64 * 12 + u64::from(u8::from(date.month()))
            }
            Period::Year => self.date().year() as u64,
            _ => self.0 / 1000 / period.seconds(),
        }
    }

    /// When the window of this period began.
    pub fn start(self, period: Period) -> Self {
        let length = period.seconds() * 1000;
        let days = match period {
            Period::Month => u64::from(self.date().day()) - 1,
            Period::Year => u64::from(self.date().ordinal()) - 1,
            _ => return Self(self.0 / length * length),
        };
        let day = Period::Day.seconds() * 1000;
        Self((self.0 / day).saturating_sub(days) * day)
    }

    /// When the window of this period ends.
    pub fn end(self, period: Period) -> Self {
        // No month has more than 31 days and no year more than 366.
        let days = match period {
            Period::Month => 32,
            Period::Year => 367,
            _ => return Self(self.start(period).0 + period.seconds() * 1000),
        };
        Self(self.start(period).0 + days * Period::Day.seconds() * 1000).start(period)
    }

    /// Seconds until the window of this period ends, by its nominal length; at least 1.
    pub fn reset(self, period: Period) -> u64 {
        let elapsed = (self.0 - self.start(period).0) / 1000;
        period.seconds().saturating_sub(elapsed).max(1)
    }

    fn date(self) -> time::Date {
        OffsetDateTime::from_unix_timestamp((self.0 / 1000) as i64).map_or(time::Date::MIN, |moment| moment.date())
    }
}

/// Whose counter it is: a hash of everything that tells limiters and identifiers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// The key of one of this one's windows.
    pub fn within(self, period: Period, start: Moment) -> Self {
        Self(self.0 ^ (u128::from(start.0) << 3 | period as u128))
    }

    /// In which of so many shards of a table it belongs.
    pub fn shard_of(self, shards: usize) -> usize {
        (self.0 >> 96) as usize % shards
    }
}

/// What the keys of one configuration have in common, hashed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(u64);

impl Salt {
    pub fn new(parts: &[&[u8]]) -> Self {
        Self(hashed(parts, |bytes| xxh3_64_with_seed(bytes, *SEED)))
    }

    /// A key for these parts; their order counts, and where one ends and the next begins.
    pub fn key(self, parts: &[&[u8]]) -> Key {
        Key(hashed(parts, |bytes| xxh3_128_with_seed(bytes, self.0)))
    }
}

/// The hash of all parts, each behind its length. What is short, as nearly all is, takes no memory of its own.
fn hashed<T>(parts: &[&[u8]], hash: impl FnOnce(&[u8]) -> T) -> T {
    const LENGTH: usize = size_of::<u32>();
    let length = |part: &[u8]| (part.len() as u32).to_le_bytes();
    let mut buffer = [0; 96];
    let mut end = 0;
    for part in parts {
        let Some(place) = buffer.get_mut(end..end + LENGTH + part.len()) else {
            return hash(&parts.iter().flat_map(|part| [&length(part)[..], part].concat()).collect::<Vec<u8>>());
        };
        let (before, place) = place.split_at_mut(LENGTH);
        before.copy_from_slice(&length(part));
        place.copy_from_slice(part);
        end += LENGTH + part.len();
    }
    hash(&buffer[..end])
}

/// Differs from process to process, so that nobody can prepare keys that meet.
static SEED: std::sync::LazyLock<u64> = std::sync::LazyLock::new(rand::random);

/// The key is a hash already: its low half is the hash in the table.
#[derive(Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

type Generation = HashMap<Key, Windows, BuildHasherDefault<AsIs>>;

/// The table of counters.
pub struct Counters {
    shards: Box<[RwLock<Shard>]>,
}

#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

impl Default for Counters {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect() }
    }
}

/// How a [`Counters::take`] went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// What was counted in each window before.
    pub before: Periods<i64>,
    /// Whether it was counted; if not, a limit was reached and nothing was counted in any window.
    pub counted: bool,
}

impl Counters {
    /// Parts in which the table is swept, each short enough to do between two requests.
    pub const PARTS: usize = 32;

    /// Counts one in each window that has a limit, or in none of them when a limit is reached. Exact with any number of
    /// threads: no more than the limit is ever counted.
    pub fn take(&self, key: Key, limits: &Periods<Option<f64>>, now: Moment) -> Taken {
        self.with(key, |windows| windows.take(limits, now))
    }

    /// What is counted in each window of these periods.
    pub fn read(&self, key: Key, now: Moment) -> Periods<i64> {
        let shard = self.shards[key.shard_of(SHARDS)].read();
        let windows = shard.young.get(&key).or_else(|| shard.old.get(&key));
        windows.map_or([0; 6], |windows| Period::ALL.map(|period| windows.of(period).read(now.window(period))))
    }

    /// Counts `amount`, which may be negative, in the windows of all periods, whatever their limits.
    pub fn add(&self, key: Key, amount: i64, now: Moment) {
        self.with(key, |windows| {
            for period in Period::ALL {
                windows.of(period).add(now.window(period), amount);
            }
        });
    }

    /// Drops the keys whose windows are all over, in one of [`Counters::PARTS`] parts of the table.
    pub fn sweep(&self, part: usize, now: Moment) {
        let current = Period::ALL.map(|period| now.window(period));
        for shard in self.shards.iter().skip(part % Self::PARTS).step_by(Self::PARTS) {
            let mut shard = shard.write();
            let Shard { young, old } = &mut *shard;
            for generation in [young, old] {
                generation.retain(|_, windows| windows.clean(&current));
                if generation.capacity() > 64 && generation.len() * 4 < generation.capacity() {
                    generation.shrink_to_fit();
                }
            }
        }
    }

    /// Number of keys.
    /// Keys that are kept at most, and about as many bytes as one takes.
    pub const MOST_KEYS: usize = 2 * SHARDS * GENERATION;
    pub const KEY_BYTES: usize = size_of::<(Key, Windows)>();

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read()).map(|shard| shard.young.len() + shard.old.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with<R>(&self, key: Key, act: impl Fn(&Windows) -> R) -> R {
        let shard = &self.shards[key.shard_of(SHARDS)];
        if let Some(windows) = shard.read().young.get(&key) {
            return act(windows);
        }
        act(shard.write().admit(key))
    }
}

impl Shard {
    /// Brings the key into the younger generation.
    fn admit(&mut self, key: Key) -> &Windows {
        if !self.young.contains_key(&key) && self.young.len() >= GENERATION {
            let retired = std::mem::take(&mut self.young);
            let kept = std::mem::replace(&mut self.old, retired).remove(&key);
            return self.young.entry(key).or_insert_with(|| kept.unwrap_or_default());
        }
        let Self { young, old } = self;
        young.entry(key).or_insert_with(|| old.remove(&key).unwrap_or_default())
    }
}

/// The counters of one key.
#[derive(Debug, Default)]
struct Windows(Periods<Counter>);

impl Windows {
    fn of(&self, period: Period) -> &Counter {
        &self.0[period as usize]
    }

    fn take(&self, limits: &Periods<Option<f64>>, now: Moment) -> Taken {
        let mut before = [0; 6];
        for period in Period::ALL {
            let Some(limit) = limits[period as usize] else { continue };
            match self.of(period).take(now.window(period), limit) {
                Ok(count) => before[period as usize] = count,
                Err(_) => {
                    self.give_back(limits, period, now);
                    return Taken { before: self.read(limits, now), counted: false };
                }
            }
        }
        Taken { before, counted: true }
    }

    fn read(&self, limits: &Periods<Option<f64>>, now: Moment) -> Periods<i64> {
        Period::ALL.map(|period| limits[period as usize].map_or(0, |_| self.of(period).read(now.window(period))))
    }

    /// Undoes what was counted in the windows shorter than this.
    fn give_back(&self, limits: &Periods<Option<f64>>, refused: Period, now: Moment) {
        for period in Period::ALL.into_iter().take(refused as usize).filter(|p| limits[*p as usize].is_some()) {
            self.of(period).add(now.window(period), -1);
        }
    }

    /// Empties counters of other windows; whether any is left.
    fn clean(&mut self, current: &Periods<u64>) -> bool {
        let mut used = false;
        for (counter, window) in self.0.iter_mut().zip(current) {
            let word = counter.0.get_mut();
            if Counter::count(*word, *window).is_none() {
                *word = 0;
            }
            used |= *word != 0;
        }
        used
    }
}

/// A count and the window that it is of: the window's number modulo 2^24 above, a signed count of 40 bits below. 0 is empty.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

const COUNT_BITS: u32 = 40;
const MOST: i64 = (1 << (COUNT_BITS - 1)) - 1;
const WINDOW_MASK: u64 = (1 << (64 - COUNT_BITS)) - 1;
/// A thread whose clock was read earlier may meet a counter that is this many windows ahead; it counts there.
const AHEAD: u64 = 2;

impl Counter {
    /// The window and the count of a word, if it belongs to this window or to one just after.
    fn count(word: u64, window: u64) -> Option<(u64, i64)> {
        let its = word >> COUNT_BITS;
        let ahead = its.wrapping_sub(window) & WINDOW_MASK;
        let count = (word << (64 - COUNT_BITS)) as i64 >> (64 - COUNT_BITS);
        (word != 0 && ahead <= AHEAD).then_some((its, count))
    }

    fn word(window: u64, count: i64) -> u64 {
        let count = count.clamp(-MOST, MOST) as u64 & ((1 << COUNT_BITS) - 1);
        ((window & WINDOW_MASK) << COUNT_BITS) | count
    }

    fn read(&self, window: u64) -> i64 {
        Self::count(self.0.load(Ordering::Relaxed), window).map_or(0, |(_, count)| count)
    }

    /// Counts one if less than the limit is counted. The count before, either way.
    fn take(&self, window: u64, limit: f64) -> Result<i64, i64> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (window, count) = Self::count(word, window).unwrap_or((window, 0));
            if count as f64 >= limit {
                return Err(count);
            }
            match self.0.compare_exchange_weak(word, Self::word(window, count + 1), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(count),
                Err(now) => word = now,
            }
        }
    }

    fn add(&self, window: u64, amount: i64) {
        let change = |word| {
            let (window, count) = Self::count(word, window).unwrap_or((window, 0));
            Some(Self::word(window, count.saturating_add(amount)))
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// 2024-02-29 23:59:58.500 UTC.
    const LEAP_DAY: Moment = Moment(1_709_251_198_500);

    fn limits(of: &[(Period, f64)]) -> Periods<Option<f64>> {
        let mut limits = [None; 6];
        for (period, limit) in of {
            limits[*period as usize] = Some(*limit);
        }
        limits
    }

    fn key(name: &str) -> Key {
        Salt::new(&[]).key(&[name.as_bytes()])
    }

    #[test]
    fn windows_follow_the_calendar() {
        let starts = Period::ALL.map(|period| LEAP_DAY.start(period).0);
        assert_eq!(
            starts,
            [1_709_251_198_000, 1_709_251_140_000, 1_709_247_600_000, 1_709_164_800_000, 1_706_745_600_000, 1_704_067_200_000]
        );
        assert_eq!(Period::ALL.map(|period| LEAP_DAY.reset(period)), [1, 2, 2, 2, 2_592_000 - 2_505_598, 31_536_000 - 5_183_998]);
        let next = Moment(LEAP_DAY.0 + 1500);
        for period in Period::ALL {
            let new = period != Period::Year;
            assert_eq!(next.window(period) != LEAP_DAY.window(period), new, "{period:?}");
        }
        let ends = Period::ALL.map(|period| LEAP_DAY.end(period).0);
        assert_eq!(ends[..3], [1_709_251_199_000, 1_709_251_200_000, 1_709_251_200_000]);
        assert_eq!(ends[3..], [1_709_251_200_000, 1_709_251_200_000, 1_735_689_600_000]);
        // The nominal length of a month is shorter than most: never less than a second is left.
        assert_eq!(Moment(1_706_745_600_000 - 1).reset(Period::Month), 1);
    }

    #[test]
    fn a_request_is_counted_in_all_windows_or_in_none() {
        let counters = Counters::default();
        let limits = limits(&[(Period::Minute, 2.0), (Period::Hour, 3.0)]);
        let take = |at: u64| counters.take(key("a"), &limits, Moment(at));
        assert_eq!(take(0), Taken { before: [0; 6], counted: true });
        assert_eq!(take(0), Taken { before: [0, 1, 1, 0, 0, 0], counted: true });
        assert_eq!(take(0), Taken { before: [0, 2, 2, 0, 0, 0], counted: false });
        assert!(take(60_000).counted);
        assert_eq!(take(60_000), Taken { before: [0, 1, 3, 0, 0, 0], counted: false });
        assert_eq!(counters.read(key("a"), Moment(60_000))[1], 1, "the minute got its one back");
        assert!(counters.take(key("b"), &limits, Moment(60_000)).counted);
        assert!(take(3_600_000).counted);
    }

    #[test]
    fn fractional_limits_round_up() {
        let counters = Counters::default();
        let limits = limits(&[(Period::Minute, 1.5)]);
        let counted = (0..4).filter(|_| counters.take(key("a"), &limits, Moment(0)).counted).count();
        assert_eq!(counted, 2);
    }

    #[test]
    fn threads_never_count_more_than_the_limit() {
        let counters = Counters::default();
        let limits = limits(&[(Period::Minute, 1000.0), (Period::Day, 1500.0)]);
        let counted = AtomicUsize::new(0);
        for (minute, expected) in [(0, 1000), (1, 1500), (2, 1500)] {
            std::thread::scope(|threads| {
                for _ in 0..8 {
                    threads.spawn(|| {
                        for _ in 0..400 {
                            let taken = counters.take(key("a"), &limits, Moment(minute * 60_000));
                            counted.fetch_add(usize::from(taken.counted), Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(counted.load(Ordering::Relaxed), expected, "after minute {minute}");
        }
    }

    #[test]
    fn amounts_go_over_limits_and_below_zero() {
        let counters = Counters::default();
        counters.add(key("a"), 9, Moment(0));
        counters.add(key("a"), -12, Moment(0));
        assert_eq!(counters.read(key("a"), Moment(0)), [-3; 6]);
        assert_eq!(counters.read(key("a"), Moment(1000)), [0, -3, -3, -3, -3, -3]);
        counters.add(key("a"), i64::MAX, Moment(0));
        counters.add(key("a"), i64::MAX, Moment(0));
        assert_eq!(counters.read(key("a"), Moment(0)), [MOST; 6]);
    }

    #[test]
    fn a_clock_read_earlier_counts_in_the_window_that_has_begun() {
        let counters = Counters::default();
        let limits = limits(&[(Period::Second, 1.0)]);
        assert!(counters.take(key("a"), &limits, Moment(1000)).counted);
        assert!(!counters.take(key("a"), &limits, Moment(999)).counted);
    }

    #[test]
    fn sweeping_drops_what_is_over() {
        let counters = Counters::default();
        counters.take(key("a"), &limits(&[(Period::Minute, 5.0)]), Moment(0));
        counters.take(key("b"), &limits(&[(Period::Day, 5.0)]), Moment(0));
        let sweep = |now| (0..Counters::PARTS).for_each(|part| counters.sweep(part, Moment(now)));
        sweep(59_000);
        assert_eq!(counters.len(), 2);
        sweep(60_000);
        assert_eq!(counters.len(), 1);
        assert_eq!(counters.read(key("b"), Moment(60_000))[3], 1);
        sweep(86_400_000);
        assert!(counters.is_empty());
    }

    #[test]
    fn parts_are_told_apart_however_long_they_are() {
        let (long, longer) = ("x".repeat(100), "x".repeat(101));
        let all = [&["ab", "c"][..], &["a", "bc"], &["abc"], &["abc", ""], &[&long], &[&longer], &[&long, "x"], &["x", &long]];
        let key = |parts: &&[&str]| Salt::new(&[]).key(&parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>());
        let keys: HashSet<Key> = all.iter().map(key).collect();
        assert_eq!(keys.len(), all.len());
        assert!(all.iter().all(|parts| keys.contains(&key(parts))));
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_used_ones_stay() {
        let counters = Counters::default();
        let limits = limits(&[(Period::Day, 1.0)]);
        counters.take(key("used"), &limits, Moment(0));
        for n in 0..2 * SHARDS * GENERATION + 50_000 {
            counters.take(Salt::new(&[]).key(&[&n.to_le_bytes()]), &limits, Moment(0));
            if n % 20_000 == 0 {
                assert!(!counters.take(key("used"), &limits, Moment(0)).counted);
            }
        }
        assert!(counters.len() <= 2 * SHARDS * GENERATION);
    }
}
