//! What names resolve to, and the handle by which the proxied path asks for it.
//!
//! Workers read a cache that is one pointer to a persistent map; the resolver's actor is its only writer. A worker waits
//! only for a name that nobody knows yet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use arc_swap::ArcSwap;
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;
use tokio::sync::oneshot;

use super::clock::nanos;
use super::shares::Shares;

/// The type of the records that a name led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    A,
    Aaaa,
    Srv,
}

impl RecordType {
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        }
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name that an SRV record points to.
    pub target: Option<Arc<str>>,
    /// The address, or those of the SRV record's target.
    pub addresses: Box<[IpAddr]>,
    /// Port of an SRV record, unless it is 0.
    pub port: Option<u16>,
    /// Weight of an SRV record; 1 where the record says 0, and in other records.
    pub weight: u32,
}

/// A name's records: of SRV those of the first priority.
#[derive(Debug)]
pub struct Resolved {
    pub kind: RecordType,
    pub records: Box<[Record]>,
    /// When the records are to be looked up again.
    pub expires: Instant,
    /// The records said not to keep them: the name is looked up for every request.
    pub transient: bool,
    shares: Shares,
    turn: AtomicU64,
}

impl Resolved {
    pub fn new(kind: RecordType, records: Vec<Record>, expires: Instant, transient: bool) -> Self {
        let shares = Shares::new(records.iter().map(|record| record.weight));
        Self { kind, records: records.into_boxed_slice(), expires, transient, shares, turn: AtomicU64::new(0) }
    }

    /// An address that is its own name.
    pub fn literal(ip: IpAddr, now: Instant) -> Self {
        let kind = if ip.is_ipv4() { RecordType::A } else { RecordType::Aaaa };
        let record = Record { target: None, addresses: [ip].into(), port: None, weight: 1 };
        Self::new(kind, vec![record], now + Duration::from_secs(10 * 365 * 24 * 3600), false)
    }

    /// The next address in turn, by weight. An SRV record's port goes before `port`.
    pub fn next(&self, port: u16) -> Option<SocketAddr> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let record = self.records.get(self.shares.at(turn)?)?;
        let round = turn / self.shares.cycle().max(1);
        let ip = *record.addresses.get(round as usize % record.addresses.len().max(1))?;
        Some(SocketAddr::new(ip, record.port.unwrap_or(port)))
    }
}

/// Why a name has no address. The texts are those of Kong's DNS client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    #[error("dns server error: 3 name error")]
    NameError,
    #[error("dns client error: 101 empty record received")]
    Empty,
    /// The servers cannot be reached, refuse, or answer wrongly.
    #[error("{0}")]
    Failed(Arc<str>),
    /// Too many names wait for an answer.
    #[error("dns client error: too many lookups under way")]
    Busy,
}

impl DnsError {
    /// The status and message for a request that needed the name.
    pub fn answer(&self) -> (u16, &'static str) {
        match self {
            Self::NameError | Self::Empty => (503, "name resolution failed"),
            Self::Failed(_) | Self::Busy => (500, "An unexpected error occurred"),
        }
    }
}

pub type Answer = Result<Arc<Resolved>, DnsError>;

/// Whoever looks names up and writes the cache.
pub trait Lookups: Send + Sync {
    /// Starts a lookup, or joins the one under way; the answer goes to `reply` and into the cache. False when it cannot.
    fn look_up(&self, name: &str, reply: Option<oneshot::Sender<Answer>>) -> bool;
}

/// How often which thing happened.
#[derive(Debug, Default)]
pub struct DnsCounts {
    /// Requests for a name, whether or not it was known.
    pub requests: AtomicU64,
    /// Names that were not known.
    pub misses: AtomicU64,
    /// Answers past their time, given while they were looked up again.
    pub stale: AtomicU64,
    /// Lookups that failed.
    pub failures: AtomicU64,
}

/// The cache of names. Read by everyone, written by the resolver's actor alone.
#[derive(Default)]
pub struct DnsCache {
    names: ArcSwap<Names>,
    pub counts: DnsCounts,
}

type Names = GenericHashMap<Arc<str>, Arc<Entry>, RandomState, DefaultSharedPtr>;

/// What the cache holds for a name.
pub struct Entry {
    pub answer: Answer,
    pub expires: Instant,
    /// Until when the answer may be given although it has expired.
    pub stale_until: Instant,
    /// When it was last asked for, and when the next refresh may be asked for, in nanoseconds of the clock.
    used: AtomicU64,
    refresh_at: AtomicU64,
}

/// A lookup that gets no answer is asked for again after this.
const REFRESH_AGAIN: Duration = Duration::from_secs(10);

impl Entry {
    pub fn new(answer: Answer, expires: Instant, stale_until: Instant, now: Instant) -> Self {
        Self { answer, expires, stale_until, used: nanos(now).into(), refresh_at: nanos(expires).into() }
    }

    /// The entry after a refresh that failed: not asked for again before `at`.
    pub fn put_off(&self, at: Instant) {
        self.refresh_at.store(nanos(at), Ordering::Relaxed);
    }

    fn fresh(&self, now: Instant) -> bool {
        now < self.expires
    }

    /// Whether the caller is the one to ask for a refresh.
    fn claim_refresh(&self, now: Instant) -> bool {
        let at = self.refresh_at.load(Ordering::Relaxed);
        let next = nanos(now + REFRESH_AGAIN);
        at <= nanos(now) && self.refresh_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl DnsCache {
    /// The entry of a name, fresh or not.
    pub fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.names.load().get(name).cloned()
    }

    /// Puts an entry in; when there are more than `limit`, the tenth that was not used for longest goes.
    pub fn insert(&self, name: Arc<str>, entry: Arc<Entry>, limit: usize) {
        let mut names = Names::clone(&self.names.load());
        names.insert(name, entry);
        if names.len() > limit.max(1) {
            let mut ages: Vec<(u64, Arc<str>)> =
                names.iter().map(|(name, entry)| (entry.used.load(Ordering::Relaxed), name.clone())).collect();
            ages.sort_unstable();
            let surplus = names.len() - limit.max(1) + limit / 10;
            for (_, name) in ages.into_iter().take(surplus) {
                names.remove(&name);
            }
        }
        self.names.store(Arc::new(names));
    }

    pub fn remove(&self, name: &str) {
        let mut names = Names::clone(&self.names.load());
        if names.remove(name).is_some() {
            self.names.store(Arc::new(names));
        }
    }

    pub fn len(&self) -> usize {
        self.names.load().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Resolves names for whoever calls out: cheap to clone, usable on every thread.
#[derive(Clone)]
pub struct Resolver {
    cache: Arc<DnsCache>,
    lookups: Arc<dyn Lookups>,
}

impl Resolver {
    pub fn new(cache: Arc<DnsCache>, lookups: Arc<dyn Lookups>) -> Self {
        Self { cache, lookups }
    }

    pub fn counts(&self) -> &DnsCounts {
        &self.cache.counts
    }

    pub fn cache(&self) -> &DnsCache {
        &self.cache
    }

    /// What is known of a name without waiting, also that it does not resolve; none when it has to be looked up. An answer
    /// past its time is given as long as `dns_stale_ttl` allows, and looked up again in the meantime.
    pub fn cached(&self, name: &str) -> Option<Answer> {
        if let Some(ip) = literal(name) {
            return Some(Ok(Arc::new(Resolved::literal(ip, Instant::now()))));
        }
        let name = canonical(name);
        let now = Instant::now();
        self.cache.counts.requests.fetch_add(1, Ordering::Relaxed);
        let names = self.cache.names.load();
        let entry = names.get(&*name)?;
        if !entry.fresh(now) {
            if now >= entry.stale_until {
                return None;
            }
            self.cache.counts.stale.fetch_add(1, Ordering::Relaxed);
            if entry.claim_refresh(now) {
                self.lookups.look_up(&name, None);
            }
        }
        entry.used.store(nanos(now), Ordering::Relaxed);
        Some(entry.answer.clone())
    }

    /// What a name resolves to; waits where it has to be looked up.
    pub async fn resolve(&self, name: &str) -> Answer {
        match self.cached(name) {
            Some(answer) => answer,
            None => self.look_up(name).await,
        }
    }

    /// Like [`Resolver::resolve`], but waits for another answer when the one that is known is past its time.
    pub async fn renew(&self, name: &str) -> Answer {
        if let Some(ip) = literal(name) {
            return Ok(Arc::new(Resolved::literal(ip, Instant::now())));
        }
        match self.cache.entry(&canonical(name)).filter(|entry| entry.fresh(Instant::now())) {
            Some(entry) => entry.answer.clone(),
            None => self.look_up(name).await,
        }
    }

    async fn look_up(&self, name: &str) -> Answer {
        self.cache.counts.misses.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        if !self.lookups.look_up(&canonical(name), Some(reply)) {
            return Err(DnsError::Busy);
        }
        answer.await.unwrap_or_else(|_| Err(DnsError::Failed("dns client error: lookup was given up".into())))
    }
}

/// An address written as such, in brackets or not.
pub fn literal(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse().ok()
}

/// The form in which the cache knows a name.
fn canonical(name: &str) -> std::borrow::Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use tokio::sync::oneshot;

    use super::{Answer, DnsCache, DnsError, Entry, Lookups, Record, RecordType, Resolved, Resolver};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Lookups for Counting {
        fn look_up(&self, _: &str, reply: Option<oneshot::Sender<Answer>>) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            reply.is_none_or(|reply| reply.send(Err(DnsError::NameError)).is_ok())
        }
    }

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn record(last: u8, port: Option<u16>, weight: u32) -> Record {
        Record { target: None, addresses: [ip(last)].into(), port, weight }
    }

    #[test]
    fn records_take_turns_by_weight() {
        let now = Instant::now();
        let resolved = Resolved::new(RecordType::Srv, vec![record(1, Some(81), 2), record(2, None, 1)], now, false);
        let mut seen: Vec<String> = (0..6).filter_map(|_| resolved.next(80)).map(|address| address.to_string()).collect();
        seen.sort();
        assert_eq!(seen, ["10.0.0.1:81", "10.0.0.1:81", "10.0.0.1:81", "10.0.0.1:81", "10.0.0.2:80", "10.0.0.2:80"]);
    }

    #[test]
    fn stale_answers_are_given_and_refreshed_once() {
        let lookups = Arc::new(Counting::default());
        let cache = Arc::new(DnsCache::default());
        let resolver = Resolver::new(cache.clone(), lookups.clone());
        let now = Instant::now();
        assert!(resolver.cached("a.test").is_none());
        let answer = Ok(Arc::new(Resolved::new(RecordType::A, vec![record(1, None, 1)], now, false)));
        cache.insert("a.test".into(), Arc::new(Entry::new(answer, now, now + Duration::from_secs(60), now)), 10);
        for _ in 0..3 {
            assert!(resolver.cached("A.test").is_some_and(|answer| answer.is_ok()));
        }
        assert_eq!(lookups.0.load(Ordering::Relaxed), 1);
        assert_eq!(resolver.counts().stale.load(Ordering::Relaxed), 3);
    }

    #[actix_rt::test]
    async fn literals_are_not_looked_up() {
        let lookups = Arc::new(Counting::default());
        let resolver = Resolver::new(Arc::default(), lookups.clone());
        for (name, address) in [("10.0.0.9", "10.0.0.9:80"), ("[::1]", "[::1]:80"), ("::1", "[::1]:80")] {
            let resolved = resolver.resolve(name).await.expect("a literal resolves to itself");
            assert_eq!(resolved.next(80).map(|a| a.to_string()).as_deref(), Some(address));
        }
        assert_eq!(lookups.0.load(Ordering::Relaxed), 0);
        assert_eq!(resolver.resolve("b.test").await.err(), Some(DnsError::NameError));
        assert_eq!(lookups.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let cache = Arc::new(DnsCache::default());
        let resolver = Resolver::new(cache.clone(), Arc::new(Counting::default()));
        for at in 0..40 {
            let now = Instant::now();
            let entry = Entry::new(Err(DnsError::Empty), now + Duration::from_secs(60), now, now);
            cache.insert(format!("{at}.test").into(), Arc::new(entry), 20);
            assert!(resolver.cached("0.test").is_some(), "after {at}");
        }
        assert!(cache.len() <= 20);
    }
}
