//! Commands that are meant for all nodes: to forget kept answers, and the health of targets that is set by hand. They are records
//! as rows are, so that a node which was cut off obeys them when it is back.
//!
//! | kind | id | body |
//! |---|---|---|
//! | [`PURGES`] | the node that was told to purge | its last purges, and since when they are all |
//! | [`MARKS`] | the target, which is the record's parent | what was set last for it and for its addresses |
//!
//! Both remember so much and no more. Whoever has missed more purges than are remembered forgets all answers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::id::Key;
use cluster::record::Record;
use cluster::replica;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::actors::upstreams::{Upstreams, Which};
use crate::catalog::{Catalog, row};
use crate::model::Upstream;
use crate::plugin::cache::{self, Cache};

pub const PURGES: &str = "proxy_cache_purges";
pub const MARKS: &str = "target_marks";

/// Purges that a node's record names. More than these at once become one of everything.
const MOST_PURGES: usize = 256;
/// Marks of a target.
const MOST_MARKS: usize = 64;
/// Where probes look after a target, a mark is obeyed for so long after it was made: then they have the say, as they have had
/// on the nodes that obeyed it in time. Milliseconds.
const OVER_PROBES: u64 = 300_000;
/// How long a mark waits for its address to be known to the node.
const PATIENCE: Duration = Duration::from_secs(60);
/// Marks that wait for their address at most.
const MOST_WAITING: usize = 10_000;

/// Whether the cluster keeps such records for the node's own ends, so that they are nobody's configuration.
pub fn is_command(key: &Key) -> bool {
    matches!(&*key.kind, PURGES | MARKS)
}

/// The purges that a node was told to make.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purges {
    /// All later purges are in `keys`, and whoever has not seen this one forgets everything.
    since: u64,
    /// Number and key, oldest first.
    keys: Vec<(u64, String)>,
}

/// What a node has to do that has obeyed the purges up to a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Everything,
    Keys(Vec<cache::Key>),
}

impl Purges {
    fn last(&self) -> u64 {
        self.keys.last().map_or(self.since, |(number, _)| *number)
    }

    /// With another purge: of a key, or of everything. Numbers follow the time, so that those of a node that has lost its record
    /// go on.
    pub fn and(mut self, key: Option<&cache::Key>, now: u64) -> Self {
        let number = now.max(self.last().saturating_add(1));
        match key {
            None => Self { since: number, keys: Vec::new() },
            Some(key) => {
                self.keys.push((number, key.to_string()));
                if self.keys.len() > MOST_PURGES {
                    self.since = self.keys.remove(0).0;
                }
                self
            }
        }
    }

    pub(super) fn due(&self, obeyed: u64) -> Due {
        if self.since > obeyed {
            return Due::Everything;
        }
        let later = self.keys.iter().filter(|(number, _)| *number > obeyed);
        Due::Keys(later.filter_map(|(_, key)| cache::Key::parse(key)).collect())
    }
}

/// What was set by hand for a target.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    pub upstream: Uuid,
    /// Oldest first.
    marks: Vec<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Milliseconds since the epoch, and later than that of the mark before.
    at: u64,
    /// `ip` or `ip:port`; all addresses when absent.
    address: Option<String>,
    healthy: bool,
}

impl Marks {
    /// With another mark, which takes the place of those that it overrules.
    pub fn and(mut self, which: &Which, healthy: bool, now: u64) -> Self {
        let at = self.marks.last().map_or(now, |last| now.max(last.at.saturating_add(1)));
        self.marks.retain(|mark| which.address.is_some() && mark.address != which.address);
        if self.marks.len() >= MOST_MARKS {
            self.marks.remove(0);
        }
        self.marks.push(Mark { at, address: which.address.clone(), healthy });
        Self { upstream: which.upstream, marks: self.marks }
    }

    /// Those to obey for a node that has obeyed them up to a time.
    pub(super) fn due(&self, obeyed: u64, probed: bool, now: u64) -> impl Iterator<Item = &Mark> {
        self.marks.iter().filter(move |mark| mark.at > obeyed && !(probed && mark.at.saturating_add(OVER_PROBES) < now))
    }
}

/// The body of a command's record; the default when there is none.
pub fn body<T: Default + for<'a> Deserialize<'a>>(record: Option<&Record>) -> Result<T, String> {
    let Some(body) = record.and_then(|record| record.body.as_deref()) else { return Ok(T::default()) };
    serde_json::from_slice(body).map_err(|_| "it is not what this version expects".to_owned())
}

/// A mark whose address the node does not know yet.
struct Waiting {
    which: Which,
    healthy: bool,
    until: Instant,
}

/// What obeys commands on this node.
pub struct Commands {
    cache: Arc<Cache>,
    upstreams: Arc<Upstreams>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Node to the last of its purges that was obeyed.
    purged: HashMap<Arc<str>, u64>,
    /// Target to the time of its last mark that was obeyed.
    marked: HashMap<Uuid, u64>,
    waiting: Vec<Waiting>,
    /// Targets with marks that are not in effect: deleted, or left over by a target that is gone.
    doubtful: BTreeSet<Uuid>,
}

impl Commands {
    pub fn new(cache: Arc<Cache>, upstreams: Arc<Upstreams>) -> Self {
        Self { cache, upstreams, state: Mutex::default() }
    }

    /// Obeys a command, or takes note that it is gone. Called on a thread that may block, when all rows that came with it are in
    /// effect.
    pub fn obey(&self, change: &replica::Change, catalog: &Catalog) -> Result<(), String> {
        match (&*change.key.kind, &change.effective) {
            (PURGES, Some(record)) => self.purge(&record.key.id, &body(Some(record))?),
            (PURGES, None) => drop(self.state.lock().purged.remove(&change.key.id)),
            (_, effective) => {
                let target = Uuid::try_parse(&change.key.id).map_err(|_| "it names no target".to_owned())?;
                match effective {
                    Some(record) => self.mark(target, &body(Some(record))?, catalog),
                    None => self.forget(target),
                }
            }
        }
        Ok(())
    }

    fn purge(&self, node: &Arc<str>, purges: &Purges) {
        let obeyed = self.state.lock().purged.insert(Arc::clone(node), purges.last()).unwrap_or(0);
        match purges.due(obeyed) {
            Due::Everything => drop(self.cache.memory.purge_all()),
            Due::Keys(keys) => {
                for key in &keys {
                    // Whether it was there is of no interest.
                    let _ = self.cache.memory.purge(key);
                }
            }
        }
    }

    fn mark(&self, target: Uuid, marks: &Marks, catalog: &Catalog) {
        let last = marks.marks.last().map_or(0, |mark| mark.at);
        let obeyed = {
            let mut state = self.state.lock();
            state.doubtful.remove(&target);
            state.marked.insert(target, last).unwrap_or(0)
        };
        let row = catalog.get("upstreams", &marks.upstream);
        let active = row.and_then(|row| row.typed::<Upstream>()).map(|upstream| upstream.healthchecks.active.clone());
        let probed = active.is_some_and(|active| active.healthy.interval > 0.0 && active.healthy.successes > 0);
        for mark in marks.due(obeyed, probed, row::now()) {
            let which = Which { upstream: marks.upstream, target, address: mark.address.clone() };
            if !self.set(&which, mark.healthy) {
                let mut state = self.state.lock();
                if state.waiting.len() < MOST_WAITING {
                    state.waiting.push(Waiting { which, healthy: mark.healthy, until: Instant::now() + PATIENCE });
                }
            }
        }
    }

    fn forget(&self, target: Uuid) {
        let mut state = self.state.lock();
        state.marked.remove(&target);
        state.waiting.retain(|waiting| waiting.which.target != target);
        state.doubtful.insert(target);
    }

    /// Takes note of a target whose marks may be left over.
    pub fn doubt(&self, target: Uuid) {
        self.state.lock().doubtful.insert(target);
    }

    pub fn doubtful(&self) -> Vec<Uuid> {
        self.state.lock().doubtful.iter().copied().collect()
    }

    /// The target has no marks any more.
    pub fn trust(&self, target: Uuid) {
        self.state.lock().doubtful.remove(&target);
    }

    /// Sets the health; false when the node does not know the address, which may still be being resolved.
    fn set(&self, which: &Which, healthy: bool) -> bool {
        // Without health checks there is nothing to set.
        self.upstreams.set_health(which, healthy).unwrap_or(true)
    }

    /// Marks whose address is known by now.
    pub fn try_again(&self) {
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        if waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        let left: Vec<Waiting> =
            waiting.into_iter().filter(|waiting| waiting.until > now && !self.set(&waiting.which, waiting.healthy)).collect();
        self.state.lock().waiting.extend(left);
    }
}

#[cfg(test)]
mod tests {
    use cluster::clock::Stamp;
    use cluster::id::NodeId;
    use cluster::record::Version;
    use schema::json;

    use super::*;
    use crate::actors::resolver::tests::{options, resolver, serve};
    use crate::actors::upstreams::{Shown, target_health};
    use crate::catalog::{Change, Schemas};
    use crate::model;

    fn key(n: u8) -> cache::Key {
        cache::entry::tests::key(n)
    }

    #[test]
    fn whoever_has_seen_the_last_purges_makes_those_that_follow() {
        let purges = Purges::default().and(Some(&key(1)), 100).and(Some(&key(2)), 100);
        assert_eq!(purges.due(0), Due::Keys(vec![key(1), key(2)]));
        assert_eq!(purges.due(100), Due::Keys(vec![key(2)]));
        assert_eq!(purges.due(101), Due::Keys(vec![]));
        let all = purges.and(None, 50);
        assert_eq!(all, Purges { since: 102, keys: vec![] }, "numbers rise though the clock was set back");
        assert_eq!(all.due(101), Due::Everything);
        assert_eq!(all.and(Some(&key(3)), 200).due(102), Due::Keys(vec![key(3)]));
    }

    #[test]
    fn whoever_has_missed_more_than_is_remembered_forgets_everything() {
        let many = (0..MOST_PURGES + 2).fold(Purges::default(), |purges, _| purges.and(Some(&key(1)), 0));
        assert_eq!(many.keys.len(), MOST_PURGES);
        assert_eq!(many.due(1), Due::Everything);
        assert_eq!(many.due(2), Due::Keys(vec![key(1); MOST_PURGES]));
    }

    /// Two upstreams with a target each: one that only passive checks look after, and one that is probed. The ids of the targets
    /// are those of the upstreams and 10.
    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        let schemas = Schemas { choose: Arc::new(|_, _| None), features: Vec::new() };
        let mut create = |entity: &'static str, input: schema::Value| {
            let entity = model::entity(entity).expect("an entity");
            let input = input.as_object().cloned().expect("an object");
            catalog = catalog.plan(Change::Create { entity, input }, &schemas.context()).expect("a row").next;
        };
        let passive = json!({"passive": {"unhealthy": {"http_failures": 3}}});
        let active = json!({"active": {"healthy": {"interval": 1000, "successes": 1}}});
        for (id, checks) in [(1_u128, passive), (2, active)] {
            let upstream = Uuid::from_u128(id).to_string();
            create("upstreams", json!({"id": upstream, "name": format!("u{id}"), "healthchecks": checks}));
            let target = Uuid::from_u128(id + 10).to_string();
            create("targets", json!({"id": target, "target": "127.0.0.1:9", "upstream": {"id": upstream}}));
        }
        catalog
    }

    fn change(which: &Which, marks: &Marks) -> replica::Change {
        let key = Key::new(MARKS, which.target.to_string());
        let version = Version { life: 1, stamp: Stamp::new(1, 0, NodeId(1)) };
        let body = serde_json::to_vec(marks).expect("a text").into();
        let record = Record::new(key.clone(), version, Version::NONE, version.stamp, Vec::new(), Vec::new(), Some(body));
        replica::Change { key, effective: Some(record.expect("a record")), lost: Vec::new() }
    }

    #[actix_rt::test]
    async fn marks_are_obeyed_once_and_give_way_to_probes() {
        let arbiter = actix_rt::Arbiter::current();
        let (_, server) = serve().await;
        let upstreams = Arc::new(Upstreams::new(arbiter, resolver(options(server)), None));
        let catalog = catalog();
        upstreams.reconcile(&catalog);
        let commands = Commands::new(Arc::default(), Arc::clone(&upstreams));
        let which = |id: u128, address: Option<&str>| Which {
            upstream: Uuid::from_u128(id),
            target: Uuid::from_u128(id + 10),
            address: address.map(str::to_owned),
        };
        let available = |id: u128| {
            let balancer = upstreams.balancer(Uuid::from_u128(id)).expect("it is there");
            balancer.ring().places.iter().all(|place| target_health(&balancer, place) == Shown::Healthy)
        };
        let long_ago = row::now() - 2 * OVER_PROBES;
        let obey = |id: u128, at: u64| {
            let marks = Marks::default().and(&which(id, None), false, at);
            commands.obey(&change(&which(id, None), &marks), &catalog).expect("a command");
            marks
        };
        let marks = obey(1, long_ago);
        obey(2, long_ago);
        assert!(!available(1) && available(2), "what is probed is known better by now");
        obey(2, row::now());
        assert!(!available(2));
        // The same record comes again, with one more mark for an address that is not there yet.
        upstreams.set_health(&which(1, None), true).expect("there are checks");
        let marks = marks.and(&which(1, Some("127.0.0.2")), false, row::now());
        commands.obey(&change(&which(1, None), &marks), &catalog).expect("a command");
        assert!(available(1));
        assert_eq!(commands.state.lock().waiting.len(), 1);
        commands.try_again();
        assert_eq!(commands.state.lock().waiting.len(), 1, "it still waits");
        let gone = replica::Change { key: Key::new(MARKS, which(1, None).target.to_string()), effective: None, lost: Vec::new() };
        commands.obey(&gone, &catalog).expect("a command");
        assert!(commands.state.lock().waiting.is_empty());
    }

    #[test]
    fn a_mark_overrules_those_for_the_same_address_and_one_of_the_target_all() {
        let which = |address: Option<&str>| Which { upstream: Uuid::nil(), target: Uuid::nil(), address: address.map(str::to_owned) };
        let marks = Marks::default().and(&which(Some("a")), false, 10).and(&which(Some("b")), false, 10);
        let marks = marks.and(&which(Some("a")), true, 10);
        let shown = |marks: &Marks| marks.marks.iter().map(|m| (m.at, m.address.clone(), m.healthy)).collect::<Vec<_>>();
        assert_eq!(shown(&marks), [(11, Some("b".to_owned()), false), (12, Some("a".to_owned()), true)]);
        assert_eq!(shown(&marks.and(&which(None), false, 99)), [(99, None, false)]);
    }
}
