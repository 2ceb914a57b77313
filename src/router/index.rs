//! Entries by host and path prefix: a request looks at few of them, however many there are.

use ahash::AHashMap;

use crate::router::entry::{Entry, Paths};
use crate::router::pattern::{Name, split_port};
use crate::router::{Match, Query};

/// Entries in the order of their priority, and where to look for those that a request may match.
#[derive(Default)]
pub struct Index {
    entries: Vec<Entry>,
    /// Entries that name hosts, by host.
    exact: AHashMap<String, Bucket>,
    /// Entries that name hosts with a star, by what the star leaves.
    suffixes: AHashMap<String, Bucket>,
    prefixes: AHashMap<String, Bucket>,
    /// Entries for any host.
    any: Bucket,
}

/// Entries of one host, by the beginning of their paths.
#[derive(Default)]
struct Bucket {
    by_prefix: AHashMap<String, Vec<u32>>,
    /// Lengths of the prefixes, longest first.
    lengths: Vec<usize>,
}

impl Index {
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(Entry::order);
        let mut index = Self::default();
        for (rank, entry) in entries.iter().enumerate() {
            let rank = u32::try_from(rank).unwrap_or(u32::MAX);
            if entry.hosts.is_empty() {
                index.any.insert(entry, rank);
            }
            for host in &entry.hosts {
                let (table, name) = match &host.name {
                    Name::Exact(name) => (&mut index.exact, name),
                    Name::Suffix(name) => (&mut index.suffixes, name),
                    Name::Prefix(name) => (&mut index.prefixes, name),
                };
                table.entry(name.clone()).or_default().insert(entry, rank);
            }
        }
        index.buckets().for_each(Bucket::finish);
        index.entries = entries;
        index
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.exact.values_mut().chain(self.suffixes.values_mut()).chain(self.prefixes.values_mut()).chain([&mut self.any])
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
        let mut best = u32::MAX;
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
        let entry = self.entries.get(best as usize)?;
        let (prefix, captures) = entry.matched_path(query.path)?;
        Some(Match { index: entry.index, prefix, captures })
    }

    /// Lowers `best` to the rank of the first entry of the bucket that takes the request, if that is before it.
    fn look(&self, bucket: &Bucket, query: &Query<'_>, host: &str, best: &mut u32) {
        for length in &bucket.lengths {
            let Some(start) = query.path.get(..*length) else { continue };
            let Some(ranks) = bucket.by_prefix.get(start) else { continue };
            for rank in ranks {
                if rank >= best {
                    break;
                }
                let entry = &self.entries[*rank as usize];
                let path = match &entry.paths {
                    Paths::Any | Paths::Plain(_) => true,
                    Paths::Patterns(patterns) => {
                        patterns.iter().any(|(literal, p)| query.path.starts_with(literal.as_str()) && p.is_match(query.path))
                    }
                };
                if path && entry.matches(query, host) {
                    *best = *rank;
                    break;
                }
            }
        }
    }
}

impl Bucket {
    fn insert(&mut self, entry: &Entry, rank: u32) {
        let mut put = |prefix: &str| {
            let ranks = self.by_prefix.entry(prefix.to_owned()).or_default();
            if ranks.last() != Some(&rank) {
                ranks.push(rank);
            }
        };
        match &entry.paths {
            Paths::Any => put(""),
            Paths::Plain(prefixes) => prefixes.iter().for_each(|p| put(p)),
            Paths::Patterns(patterns) => patterns.iter().for_each(|(literal, _)| put(literal)),
        }
    }

    fn finish(&mut self) {
        self.lengths = self.by_prefix.keys().map(String::len).collect();
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.dedup();
    }
}
