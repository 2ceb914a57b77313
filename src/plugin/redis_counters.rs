//! Counters of fixed windows in a Redis, under the keys and with the lifetimes that Kong gives them, so that both can count
//! together.
//!
//! A window's counter lives for the window's nominal length from the first time that something is counted in it: 30 days for
//! a month. Counters of several windows go in one round trip but as commands of one key each, as servers that spread their
//! keys want it.
//!
//! [`Batches`] are for those who would rather be fast than exact: they ask Redis once, count here, and bring what was
//! counted every so often.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::SystemTime;

use ::redis::{Cmd, Pipeline, Value, cmd, from_redis_value};
use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::plugin::counters::{Moment, Period, Periods, Taken};
use crate::plugin::redis::{Link, RedisError};

/// Counts an amount, which may be negative, and answers with what was counted before. What begins to count gets a lifetime.
const COUNT: &str = "\
local count = redis.call('incrby', KEYS[1], ARGV[1])
if count == tonumber(ARGV[1]) then redis.call('expire', KEYS[1], ARGV[2]) end
return count - tonumber(ARGV[1])";

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisCounter {
    pub key: String,
    pub period: Period,
    /// When the window began.
    pub start: Moment,
}

impl RedisCounter {
    /// The windows of these periods at this moment. `whose` begins their keys; `name` tells several limits apart.
    pub fn all(whose: &str, name: Option<&str>, periods: impl Iterator<Item = Period>, now: Moment) -> Vec<Self> {
        let window = |period: Period| {
            let start = now.start(period);
            let key = match name {
                Some(name) => format!("{whose}:{}:{name}:{}", start.0, period.name()),
                None => format!("{whose}:{}:{}", start.0, period.name()),
            };
            Self { key, period, start }
        };
        periods.map(window).collect()
    }

    /// Whether the next window has begun.
    fn over(&self, now: Moment) -> bool {
        now.start(self.period) > self.start
    }

    /// The command that counts in this window.
    pub fn counting(&self, amount: i64) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(COUNT).arg(1).arg(&self.key).arg(amount).arg(self.period.seconds());
        command
    }
}

/// Counts an amount in all windows; what was counted in each before.
pub async fn count(link: &dyn Link, windows: impl Iterator<Item = &RedisCounter>, amount: i64) -> Result<Vec<i64>, RedisError> {
    let mut commands = Pipeline::new();
    for window in windows {
        commands.add_command(window.counting(amount));
    }
    numbers(commands.len(), link.ask(commands).await?)
}

/// What is counted in each window.
pub async fn read(link: &dyn Link, windows: impl Iterator<Item = &RedisCounter>) -> Result<Vec<i64>, RedisError> {
    let mut commands = Pipeline::new();
    for window in windows {
        commands.cmd("GET").arg(&window.key);
    }
    numbers(commands.len(), link.ask(commands).await?)
}

/// So many numbers, also those that come as text; 0 for what is not there.
fn numbers(wanted: usize, answers: Vec<Value>) -> Result<Vec<i64>, RedisError> {
    let number = |answer| from_redis_value::<Option<i64>>(answer).map(Option::unwrap_or_default);
    let numbers: Option<Vec<i64>> = answers.into_iter().map(number).collect::<Result<_, _>>().ok();
    numbers.filter(|numbers| numbers.len() == wanted).ok_or(RedisError::Unexpected)
}

/// What was counted before, and whether this one is counted as well: not where a limit is reached. `before` is in the order
/// of `windows`.
pub fn taken(windows: &[RedisCounter], before: &[i64], limits: &Periods<Option<f64>>) -> Taken {
    let mut taken = Taken { before: [0; 6], counted: true };
    for (window, before) in windows.iter().zip(before) {
        let n = window.period as usize;
        taken.before[n] = *before;
        taken.counted &= limits[n].is_none_or(|limit| limit > *before as f64);
    }
    taken
}

/// Counters that are brought to Redis every so often.
///
/// Redis is asked for a counter when it is counted for the first time, which counts one there; from then on it is counted
/// here until the batch is brought, and Redis is asked anew. The one that came with the question is not seen by the next
/// requests until then, as in Kong: a limit is exceeded by one, besides what other nodes count at the same time.
pub struct Batches {
    link: Arc<dyn Link>,
    kept: Mutex<HashMap<String, Kept, RandomState>>,
    /// Something is to be brought, or nobody keeps these batches any more.
    changed: Arc<Notify>,
}

/// A counter between two batches.
struct Kept {
    counter: RedisCounter,
    /// What Redis said; unknown after a batch that could not be brought.
    known: Option<i64>,
    /// What Redis has yet to be told.
    delta: i64,
}

/// Counters that are kept; more are counted by Redis alone.
const MOST: usize = 10_000;
/// Counters that are brought in one round trip.
const TOGETHER: usize = 1000;

impl Batches {
    pub fn new(link: Arc<dyn Link>) -> Self {
        Self { link, kept: Mutex::default(), changed: Arc::default() }
    }

    /// Tells when there is something to bring, for whoever calls [`Batches::bring`].
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// Counts one in each of these windows, or in none of them when a limit is reached. Waits for Redis only where one of the
    /// windows is not known.
    pub async fn take(&self, windows: &[RedisCounter], limits: &Periods<Option<f64>>) -> Result<Taken, RedisError> {
        let mut said: Vec<Option<i64>> = vec![None; windows.len()];
        loop {
            let unknown = match self.try_take(windows, &said, limits) {
                Ok(taken) => return Ok(taken),
                Err(unknown) => unknown,
            };
            let asked = windows.iter().enumerate().filter(|(n, _)| unknown.contains(n)).map(|(_, window)| window);
            for (n, answer) in unknown.iter().zip(count(&*self.link, asked, 1).await?) {
                said[*n] = Some(answer);
            }
        }
    }

    /// Counts where all windows are known: by what Redis has said to this request, which counted one there, or to an earlier
    /// one. Else those that are not, by their index.
    fn try_take(&self, windows: &[RedisCounter], said: &[Option<i64>], limits: &Periods<Option<f64>>) -> Result<Taken, Vec<usize>> {
        let mut kept = self.kept.lock();
        let known = |n: usize| said[n].is_some() || kept.get(&windows[n].key).is_some_and(|kept| kept.known.is_some());
        let unknown: Vec<usize> = (0..windows.len()).filter(|n| !known(*n)).collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let mut before = Vec::with_capacity(windows.len());
        for (window, said) in windows.iter().zip(said) {
            before.push(match (*said, kept.get_mut(&window.key)) {
                (None, kept) => kept.map_or(0, |kept| kept.known.unwrap_or_default() + kept.delta),
                (Some(said), Some(kept)) => {
                    let before = said + kept.delta;
                    kept.known.get_or_insert(said);
                    kept.delta -= 1;
                    before
                }
                (Some(said), None) => {
                    if kept.len() < MOST {
                        kept.insert(window.key.clone(), Kept { counter: window.clone(), known: Some(said), delta: -1 });
                    }
                    said
                }
            });
        }
        let taken = taken(windows, &before, limits);
        if taken.counted {
            for window in windows {
                if let Some(kept) = kept.get_mut(&window.key) {
                    kept.delta += 1;
                }
            }
        }
        self.changed.notify_one();
        Ok(taken)
    }

    /// Brings what was counted, and forgets what Redis said. What surely did not arrive is kept for the next time; what may
    /// have arrived is not counted twice.
    pub async fn bring(&self) {
        let due = self.due();
        for (n, together) in due.chunks(TOGETHER).enumerate() {
            let mut commands = Pipeline::with_capacity(together.len());
            for kept in together {
                commands.add_command(kept.counter.counting(kept.delta));
            }
            if let Err(error) = self.link.ask(commands).await {
                let arrived = n + usize::from(!error.unsent());
                return self.keep(due.into_iter().skip(arrived * TOGETHER));
            }
        }
    }

    /// Takes out all counters; those that Redis has to be told about.
    fn due(&self) -> Vec<Kept> {
        let now = Moment::from(SystemTime::now());
        let all = std::mem::take(&mut *self.kept.lock());
        all.into_values().filter(|kept| kept.delta != 0 && !kept.counter.over(now)).collect()
    }

    fn keep(&self, unsent: impl Iterator<Item = Kept>) {
        let mut all = self.kept.lock();
        for kept in unsent {
            let many = all.len() >= MOST;
            match all.entry(kept.counter.key.clone()) {
                Entry::Occupied(mut now) => now.get_mut().delta += kept.delta,
                Entry::Vacant(place) if !many => drop(place.insert(Kept { known: None, ..kept })),
                Entry::Vacant(_) => {}
            }
        }
        drop(all);
        self.changed.notify_one();
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        let mut commands = Pipeline::new();
        for kept in self.due() {
            commands.add_command(kept.counter.counting(kept.delta));
        }
        if !commands.is_empty() {
            self.link.tell(commands);
        }
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use ::redis::Arg;

    use super::*;
    use crate::plugin::redis::Asked;
    use crate::plugin::testing::run;

    /// Counts as a server would, and how often it was asked.
    #[derive(Default)]
    struct Fake {
        values: Mutex<HashMap<String, i64>>,
        asked: AtomicUsize,
        away: AtomicBool,
    }

    impl Link for Fake {
        fn ask(&self, commands: Pipeline) -> Asked<'_> {
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::Relaxed);
                if self.away.load(Ordering::Relaxed) {
                    return Err(RedisError::Away("a test says so".into()));
                }
                Ok(commands.cmd_iter().map(|command| self.run(command)).collect())
            })
        }

        fn tell(&self, commands: Pipeline) {
            commands.cmd_iter().for_each(|command| drop(self.run(command)));
        }
    }

    impl Fake {
        fn run(&self, command: &Cmd) -> Value {
            let text = |arg| match arg {
                Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                _ => String::new(),
            };
            let words: Vec<String> = command.args_iter().map(text).collect();
            let mut values = self.values.lock();
            match &*words[0] {
                "GET" => values.get(&words[1]).map_or(Value::Nil, |value| Value::BulkString(value.to_string().into())),
                _ => {
                    let value = values.entry(words[3].clone()).or_default();
                    *value += words[4].parse::<i64>().unwrap();
                    Value::Int(*value - words[4].parse::<i64>().unwrap())
                }
            }
        }

        fn value(&self, counter: &RedisCounter) -> i64 {
            self.values.lock().get(&counter.key).copied().unwrap_or(0)
        }
    }

    fn now() -> Moment {
        Moment::from(SystemTime::now())
    }

    fn counters(periods: &[Period]) -> Vec<RedisCounter> {
        RedisCounter::all("ratelimit:r:s:me", None, periods.iter().copied(), now())
    }

    /// Of a day and of a year.
    fn limits(day: f64, year: f64) -> Periods<Option<f64>> {
        [None, None, None, Some(day), None, Some(year)]
    }

    fn take(batches: &Batches, counters: &[RedisCounter], limits: &Periods<Option<f64>>) -> (i64, bool) {
        let taken = run(batches.take(counters, limits)).unwrap();
        (taken.before[Period::Day as usize], taken.counted)
    }

    #[test]
    fn keys_are_kongs() {
        let at = Moment(1_709_295_318_123);
        let keys = |name| RedisCounter::all("w", name, [Period::Second, Period::Month].into_iter(), at).into_iter().map(|c| c.key);
        assert_eq!(keys(None).collect::<Vec<_>>(), ["w:1709295318000:second", "w:1709251200000:month"]);
        assert_eq!(keys(Some("sms")).collect::<Vec<_>>(), ["w:1709295318000:sms:second", "w:1709251200000:sms:month"]);
    }

    #[test]
    fn counts_and_reads_in_one_round_trip() {
        let fake = Fake::default();
        let counters = counters(&[Period::Day, Period::Year]);
        assert_eq!(run(count(&fake, counters.iter(), 5)), Ok(vec![0, 0]));
        assert_eq!(run(count(&fake, counters[..1].iter(), -2)), Ok(vec![5]));
        assert_eq!(run(read(&fake, counters.iter())), Ok(vec![3, 5]));
        assert_eq!(fake.asked.load(Ordering::Relaxed), 3);
        assert_eq!(taken(&counters, &[3, 5], &limits(4.0, 6.0)), Taken { before: [0, 0, 0, 3, 0, 5], counted: true });
        assert!(!taken(&counters, &[3, 5], &limits(4.0, 5.0)).counted);
        assert!(taken(&counters, &[3, 5], &limits(3.5, 6.0)).counted);
    }

    /// Kong 3.10 says 4, 4, 3 left of 5 to the first three requests: 0, 0 and 1 were counted before.
    #[test]
    fn batches_ask_once_and_count_as_kong_does() {
        let fake = Arc::new(Fake::default());
        let batches = Batches::new(fake.clone());
        let (counters, limits) = (counters(&[Period::Day, Period::Year]), limits(5.0, 100.0));
        let told: Vec<_> = (0..8).map(|_| take(&batches, &counters, &limits)).collect();
        assert_eq!(told, [(0, true), (0, true), (1, true), (2, true), (3, true), (4, true), (5, false), (5, false)]);
        assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
        assert_eq!((fake.value(&counters[0]), fake.value(&counters[1])), (1, 1));
        run(batches.bring());
        assert_eq!((fake.value(&counters[0]), fake.value(&counters[1])), (6, 6), "those that passed");
        assert_eq!(take(&batches, &counters, &limits), (6, false));
        run(batches.bring());
        assert_eq!(fake.value(&counters[0]), 6, "the question that was refused is taken back");
        run(batches.bring());
        assert_eq!(fake.asked.load(Ordering::Relaxed), 4, "nothing to bring");
    }

    #[test]
    fn what_did_not_arrive_is_brought_later_and_nothing_is_known_meanwhile() {
        let fake = Arc::new(Fake::default());
        let batches = Batches::new(fake.clone());
        let (counters, limits) = (counters(&[Period::Day]), limits(50.0, 50.0));
        for _ in 0..4 {
            take(&batches, &counters, &limits);
        }
        fake.away.store(true, Ordering::Relaxed);
        run(batches.bring());
        assert!(run(batches.take(&counters, &limits)).is_err());
        fake.away.store(false, Ordering::Relaxed);
        assert_eq!(take(&batches, &counters, &limits), (4, true), "one that Redis knows, three that it does not");
        run(batches.bring());
        assert_eq!(fake.value(&counters[0]), 5);
    }

    #[test]
    fn windows_that_are_over_are_not_brought() {
        let fake = Arc::new(Fake::default());
        let batches = Batches::new(fake.clone());
        let old = RedisCounter::all("w", None, [Period::Second].into_iter(), Moment(now().0 - 5000));
        for _ in 0..3 {
            run(batches.take(&old, &[Some(9.0), None, None, None, None, None])).unwrap();
        }
        run(batches.bring());
        assert_eq!(fake.value(&old[0]), 1, "the question alone");
    }

    #[test]
    fn counters_that_are_kept_are_bounded_and_none_is_lost() {
        let fake = Arc::new(Fake::default());
        let batches = Batches::new(fake.clone());
        let limits = limits(50.0, 50.0);
        for n in 0..MOST + 5 {
            let counters = RedisCounter::all(&n.to_string(), None, [Period::Day].into_iter(), now());
            take(&batches, &counters, &limits);
            take(&batches, &counters, &limits);
        }
        assert_eq!(batches.kept.lock().len(), MOST);
        drop(batches);
        let values = fake.values.lock();
        assert_eq!((values.len(), values.values().all(|value| *value == 2)), (MOST + 5, true));
    }

    #[test]
    fn threads_count_each_request_once() {
        let fake = Arc::new(Fake::default());
        let batches = Batches::new(fake.clone());
        let (counters, limits) = (counters(&[Period::Day]), limits(1e9, 1e9));
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for n in 0..500 {
                        assert!(take(&batches, &counters, &limits).1);
                        if n % 50 == 0 {
                            run(batches.bring());
                        }
                    }
                });
            }
        });
        run(batches.bring());
        assert_eq!(fake.value(&counters[0]), 2000);
    }
}
