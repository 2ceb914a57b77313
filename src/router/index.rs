//! Entries by host and path prefix: a request looks at few of them, however many there are.

use std::sync::Arc;

use crate::flat_map::{FlatMap, Keyed};
use crate::plugin::exchange::Captures;
use crate::router::entry::{Entry, Priority};
use crate::router::pattern::{Name, split_port};
use crate::router::{Match, Query};

/// Where to look for the entries that a request may match. A clone costs nothing and keeps its version.
#[derive(Clone, Default)]
pub struct Index {
    /// Entries that name hosts, by host.
    exact: FlatMap<Named>,
    /// Entries that name hosts with a star, by what the star leaves.
    suffixes: FlatMap<Named>,
    prefixes: FlatMap<Named>,
    /// Entries for any host.
    any: Bucket,
}

/// Entries of one host.
#[derive(Clone)]
struct Named {
    name: Arc<str>,
    bucket: Bucket,
}

/// Entries by the beginning of their paths.
#[derive(Clone, Default)]
struct Bucket {
    branches: FlatMap<Branch>,
    /// Lengths of the beginnings and how many there are of each, longest first.
    lengths: Arc<[(usize, usize)]>,
}

/// The entries of one beginning. What most requests need of it stands together, in the order in which it is read: it is one
/// line of memory that the caches lack, of many routes that come at random.
#[derive(Clone)]
#[repr(C)]
struct Branch {
    /// Of the first entry.
    priority: Priority,
    place: u32,
    /// Whether the first entry takes whatever comes here.
    decided: bool,
    /// Of the beginning; the greatest stands for longer ones too.
    length: u8,
    start: [u8; INLINE],
    more: Arc<More>,
}

/// So much of a beginning is compared without a look at where the whole of it is.
const INLINE: usize = 26;

struct More {
    beginning: Box<str>,
    /// In the order of their priority; never empty.
    entries: Box<[Arc<Entry>]>,
}

/// The entry that goes before all others so far.
struct Best<'a> {
    branch: &'a Branch,
    /// The entry's place within the branch.
    at: usize,
    priority: Priority,
}

impl Index {
    pub fn insert(&mut self, entry: &Arc<Entry>) {
        self.edit(entry, Bucket::insert);
    }

    pub fn remove(&mut self, entry: &Arc<Entry>) {
        self.edit(entry, Bucket::remove);
    }

    /// Edits every bucket in which the entry stands.
    fn edit(&mut self, entry: &Arc<Entry>, edit: fn(&mut Bucket, &str, &Arc<Entry>)) {
        let each = |bucket: &mut Bucket| entry.prefixes().for_each(|prefix| edit(bucket, prefix, entry));
        if entry.hosts.is_empty() {
            return each(&mut self.any);
        }
        for host in &entry.hosts {
            let (table, name) = match &host.name {
                Name::Exact(name) => (&mut self.exact, name),
                Name::Suffix(name) => (&mut self.suffixes, name),
                Name::Prefix(name) => (&mut self.prefixes, name),
            };
            if table.get(name.as_str()).is_none() {
                table.insert(name.as_str(), Named { name: name.as_str().into(), bucket: Bucket::default() });
            }
            let Some(named) = table.get_mut(name.as_str()) else { continue };
            each(&mut named.bucket);
            if named.bucket.branches.is_empty() {
                table.remove(name.as_str());
            }
        }
    }

    pub fn find(&self, query: &Query<'_>) -> Option<Match> {
        let mut best = None;
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            self.any.look(query, "", &mut best);
        } else {
            self.look_by_host(query, &mut best);
        }
        let best: Best<'_> = best?;
        if best.branch.decided && best.at == 0 {
            return Some(Match { place: best.branch.place as usize, prefix: best.branch.prefix(), captures: Captures::default() });
        }
        let entry = best.entry();
        let (prefix, captures) = match entry.captures(query.path) {
            Some((length, captures)) => (Some(length), captures),
            None => (best.branch.prefix(), Captures::default()),
        };
        Some(Match { place: entry.place, prefix, captures })
    }

    fn look_by_host<'a>(&'a self, query: &Query<'_>, best: &mut Option<Best<'a>>) {
        let host = split_port(query.host()).0;
        let lower;
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        if let Some(named) = self.exact.get(host) {
            named.bucket.look(query, host, best);
        }
        if !self.suffixes.is_empty() {
            for (at, _) in host.match_indices('.') {
                if let Some(named) = self.suffixes.get(&host[at..]) {
                    named.bucket.look(query, host, best);
                }
            }
        }
        if !self.prefixes.is_empty() {
            for (at, _) in host.match_indices('.') {
                if let Some(named) = self.prefixes.get(&host[..=at]) {
                    named.bucket.look(query, host, best);
                }
            }
        }
        self.any.look(query, host, best);
    }
}

impl Keyed<str> for Named {
    fn has_key(&self, name: &str) -> bool {
        *self.name == *name
    }
}

impl Keyed<str> for Branch {
    fn has_key(&self, beginning: &str) -> bool {
        match self.start.get(..beginning.len()) {
            Some(start) => usize::from(self.length) == beginning.len() && start == beginning.as_bytes(),
            None => *self.more.beginning == *beginning,
        }
    }
}

impl Branch {
    fn new(beginning: &str, entries: Box<[Arc<Entry>]>) -> Self {
        let first = &entries[0];
        let mut start = [0; INLINE];
        let length = beginning.len().min(INLINE);
        start[..length].copy_from_slice(&beginning.as_bytes()[..length]);
        Self {
            priority: first.priority,
            place: first.place as u32,
            decided: first.asks_no_more(),
            length: u8::try_from(beginning.len()).unwrap_or(u8::MAX),
            start,
            more: Arc::new(More { beginning: beginning.into(), entries }),
        }
    }

    /// How much of a path that leads here is what a route's path names; nothing where it names none.
    fn prefix(&self) -> Option<usize> {
        let length = if self.length == u8::MAX { self.more.beginning.len() } else { self.length.into() };
        (length > 0).then_some(length)
    }
}

impl<'a> Best<'a> {
    fn entry(&self) -> &'a Entry {
        &self.branch.more.entries[self.at]
    }

    /// Whether it goes before an entry with this priority.
    fn goes_before<'e>(&self, priority: Priority, entry: impl FnOnce() -> &'e Entry) -> bool {
        self.priority > priority || self.priority == priority && self.entry().order(entry()).is_le()
    }
}

impl Bucket {
    /// Puts the first entry that takes the request into `best`, if it goes before what is there.
    fn look<'a>(&'a self, query: &Query<'_>, host: &str, best: &mut Option<Best<'a>>) {
        for (length, _) in self.lengths.iter() {
            let Some(start) = query.path.get(..*length) else { continue };
            let Some(branch) = self.branches.get(start) else { continue };
            if best.as_ref().is_some_and(|best| best.goes_before(branch.priority, || &branch.more.entries[0])) {
                continue;
            }
            if branch.decided {
                *best = Some(Best { branch, at: 0, priority: branch.priority });
                continue;
            }
            for (at, entry) in branch.more.entries.iter().enumerate() {
                if best.as_ref().is_some_and(|best| best.goes_before(entry.priority, || entry)) {
                    break;
                }
                if entry.matches_path(query.path) && entry.matches(query, host) {
                    *best = Some(Best { branch, at, priority: entry.priority });
                    break;
                }
            }
        }
    }

    fn insert(&mut self, beginning: &str, entry: &Arc<Entry>) {
        let Some(branch) = self.branches.get_mut(beginning) else {
            self.branches.insert(beginning, Branch::new(beginning, [Arc::clone(entry)].into()));
            return self.count(beginning.len(), 1);
        };
        let mut entries = branch.more.entries.to_vec();
        if entries.iter().any(|e| Arc::ptr_eq(e, entry)) {
            return;
        }
        let at = entries.partition_point(|e| e.order(entry).is_le());
        entries.insert(at, Arc::clone(entry));
        *branch = Branch::new(beginning, entries.into());
    }

    fn remove(&mut self, beginning: &str, entry: &Arc<Entry>) {
        let Some(branch) = self.branches.get_mut(beginning) else { return };
        let left: Box<[_]> = branch.more.entries.iter().filter(|e| !Arc::ptr_eq(e, entry)).cloned().collect();
        if left.is_empty() {
            self.branches.remove(beginning);
            self.count(beginning.len(), -1);
        } else {
            *branch = Branch::new(beginning, left);
        }
    }

    /// Counts one beginning of this length more or less.
    fn count(&mut self, length: usize, change: isize) {
        let mut lengths = self.lengths.to_vec();
        match lengths.binary_search_by(|(l, _)| length.cmp(l)) {
            Ok(at) => lengths[at].1 = lengths[at].1.saturating_add_signed(change),
            Err(at) => lengths.insert(at, (length, 1)),
        }
        lengths.retain(|(_, count)| *count > 0);
        self.lengths = lengths.into();
    }
}
