//! Entries by host and path prefix: a request looks at few of them, however many there are.

use std::sync::Arc;

use ahash::RandomState;
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;

use crate::router::entry::{Entry, Paths};
use crate::router::pattern::{Name, split_port};
use crate::router::{Match, Query};

/// A persistent map: a clone costs nothing, and a change costs a few nodes.
pub(super) type Table<T> = GenericHashMap<Arc<str>, T, RandomState, DefaultSharedPtr>;

/// Where to look for the entries that a request may match. A clone costs nothing and keeps its version.
#[derive(Clone, Default)]
pub struct Index {
    /// Entries that name hosts, by host.
    exact: Table<Bucket>,
    /// Entries that name hosts with a star, by what the star leaves.
    suffixes: Table<Bucket>,
    prefixes: Table<Bucket>,
    /// Entries for any host.
    any: Bucket,
}

/// Entries of one host, by the beginning of their paths.
#[derive(Clone, Default)]
struct Bucket {
    /// Those of one beginning are in the order of their priority.
    by_prefix: Table<Arc<[Arc<Entry>]>>,
    /// Lengths of the beginnings and how many there are of each, longest first.
    lengths: Arc<[(usize, usize)]>,
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
            let bucket = table.entry(name.as_str().into()).or_default();
            each(bucket);
            if bucket.by_prefix.is_empty() {
                table.remove(name.as_str());
            }
        }
    }

    pub fn find(&self, query: &Query<'_>) -> Option<Match> {
        let host = split_port(query.host).0;
        let lower;
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        let mut best = None;
        if !self.exact.is_empty()
            && let Some(bucket) = self.exact.get(host)
        {
            self.look(bucket, query, host, &mut best);
        }
        if !self.suffixes.is_empty() {
            for (at, _) in host.match_indices('.') {
                if let Some(bucket) = self.suffixes.get(&host[at..]) {
                    self.look(bucket, query, host, &mut best);
                }
            }
        }
        if !self.prefixes.is_empty() {
            for (at, _) in host.match_indices('.') {
                if let Some(bucket) = self.prefixes.get(&host[..=at]) {
                    self.look(bucket, query, host, &mut best);
                }
            }
        }
        self.look(&self.any, query, host, &mut best);
        let entry = best?;
        let (prefix, captures) = entry.matched_path(query.path)?;
        Some(Match { place: entry.place, prefix, captures })
    }

    /// Puts the first entry of the bucket that takes the request into `best`, if it goes before what is there.
    fn look<'a>(&self, bucket: &'a Bucket, query: &Query<'_>, host: &str, best: &mut Option<&'a Entry>) {
        for (length, _) in bucket.lengths.iter() {
            let Some(start) = query.path.get(..*length) else { continue };
            let Some(entries) = bucket.by_prefix.get(start) else { continue };
            for entry in entries.iter() {
                if best.is_some_and(|best| best.order(entry).is_le()) {
                    break;
                }
                let path = match &entry.paths {
                    Paths::Any | Paths::Plain(_) => true,
                    Paths::Patterns(patterns) => {
                        patterns.iter().any(|(literal, p)| query.path.starts_with(literal.as_str()) && p.is_match(query.path))
                    }
                };
                if path && entry.matches(query, host) {
                    *best = Some(entry);
                    break;
                }
            }
        }
    }
}

impl Bucket {
    fn insert(&mut self, prefix: &str, entry: &Arc<Entry>) {
        let mut entries = self.by_prefix.get(prefix).map_or_else(Vec::new, |entries| entries.to_vec());
        if entries.iter().any(|e| Arc::ptr_eq(e, entry)) {
            return;
        }
        if entries.is_empty() {
            self.count(prefix.len(), 1);
        }
        let at = entries.partition_point(|e| e.order(entry).is_le());
        entries.insert(at, Arc::clone(entry));
        self.by_prefix.insert(prefix.into(), entries.into());
    }

    fn remove(&mut self, prefix: &str, entry: &Arc<Entry>) {
        let Some(entries) = self.by_prefix.get(prefix) else { return };
        let left: Arc<[_]> = entries.iter().filter(|e| !Arc::ptr_eq(e, entry)).cloned().collect();
        if left.is_empty() {
            self.by_prefix.remove(prefix);
            self.count(prefix.len(), -1);
        } else {
            self.by_prefix.insert(prefix.into(), left);
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
