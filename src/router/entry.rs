//! What a route asks of a request, and its priority.

use std::sync::Arc;

use regex::Regex;

use crate::model::Route;
use crate::plugin::exchange::Captures;
use crate::router::pattern::{HeaderValue, Host, Name, split_port};
use crate::router::{Flavor, Query};

/// A route with one kind of its paths: a route with paths of several lengths is several entries.
pub struct Entry {
    /// Place of the route.
    pub place: usize,
    pub priority: Priority,
    pub hosts: Vec<Host>,
    pub paths: Paths,
    methods: Vec<String>,
    headers: Vec<(String, Vec<HeaderValue>)>,
    snis: Vec<Name>,
    created_at: i64,
    id: uuid::Uuid,
}

/// The paths of an entry.
pub enum Paths {
    Any,
    /// Prefixes, all of one length.
    Plain(Vec<Arc<str>>),
    /// Expressions with their literal beginnings, anchored at the start.
    Patterns(Vec<(String, Regex)>),
}

/// Compared field by field; the greater one goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    kinds: usize,
    /// Kinds by weight; 0 but in the traditional flavour.
    category: u8,
    plain_hosts: bool,
    headers: usize,
    regex: bool,
    regex_priority: i64,
    length: usize,
}

/// Adds the entries of a route.
pub fn expand(place: usize, route: &Route, flavor: Flavor, entries: &mut Vec<Entry>) {
    let paths = route.paths.as_deref().unwrap_or_default();
    let mut plain: Vec<&String> = paths.iter().filter(|p| !p.starts_with('~')).collect();
    let patterns: Vec<(String, Regex)> = paths
        .iter()
        .filter_map(|p| p.strip_prefix('~'))
        .filter_map(|p| {
            let compiled = Regex::new(&format!("^(?:{p})"));
            if compiled.is_err() {
                tracing::error!(route = %route.id, "a path that is no regular expression matches nothing");
            }
            Some((super::pattern::literal_prefix(p).to_owned(), compiled.ok()?))
        })
        .collect();
    let regex_priority = route.regex_priority.unwrap_or(0);
    if paths.is_empty() {
        return entries.push(Entry::new(place, route, flavor, Paths::Any, false, 0, 0));
    }
    if !patterns.is_empty() {
        let length = if flavor == Flavor::Traditional { plain.iter().map(|p| p.len()).max().unwrap_or(0) } else { 0 };
        entries.push(Entry::new(place, route, flavor, Paths::Patterns(patterns), true, regex_priority, length));
    }
    plain.sort_by_key(|p| p.len());
    for same in plain.chunk_by(|a, b| a.len() == b.len()) {
        let prefixes = same.iter().map(|p| p.as_str().into()).collect();
        entries.push(Entry::new(place, route, flavor, Paths::Plain(prefixes), false, 0, same[0].len()));
    }
}

impl Entry {
    fn new(place: usize, route: &Route, flavor: Flavor, paths: Paths, regex: bool, regex_priority: i64, length: usize) -> Self {
        let hosts: Vec<Host> = route.hosts.iter().flatten().map(|h| Host::parse(h)).collect();
        let methods: Vec<String> = route.methods.as_deref().cloned().unwrap_or_default();
        let headers: Vec<(String, Vec<HeaderValue>)> = route
            .headers
            .iter()
            .flatten()
            .map(|(name, values)| (name.clone(), values.iter().filter_map(|v| HeaderValue::parse(v)).collect()))
            .collect();
        let snis: Vec<Name> = route.snis.iter().flat_map(|s| s.iter()).map(|s| Name::parse(s.trim_end_matches('.'))).collect();
        let present = [!hosts.is_empty(), !headers.is_empty(), !matches!(paths, Paths::Any), !methods.is_empty(), !snis.is_empty()];
        let category = present.iter().fold(0, |bits, kind| bits << 1 | u8::from(*kind));
        let priority = Priority {
            kinds: present.iter().filter(|kind| **kind).count(),
            category: if flavor == Flavor::Traditional { category } else { 0 },
            plain_hosts: !hosts.is_empty() && hosts.iter().all(Host::is_plain),
            headers: headers.len().min(255),
            regex,
            regex_priority,
            length,
        };
        Self { place, priority, hosts, paths, methods, headers, snis, created_at: route.created_at, id: route.id }
    }

    /// The beginnings of the paths that the entry may take.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        let (plain, patterns): (&[Arc<str>], &[(String, Regex)]) = match &self.paths {
            Paths::Any => (&[], &[]),
            Paths::Plain(prefixes) => (prefixes, &[]),
            Paths::Patterns(patterns) => (&[], patterns),
        };
        let any = matches!(self.paths, Paths::Any).then_some("");
        any.into_iter().chain(plain.iter().map(|p| &**p)).chain(patterns.iter().map(|(literal, _)| literal.as_str()))
    }

    /// Which of two entries goes first: by priority, then the older route.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.priority.cmp(&self.priority).then_with(|| (self.created_at, self.id).cmp(&(other.created_at, other.id)))
    }

    /// Whether the entry takes a request whose path is known to match.
    pub fn matches(&self, query: &Query<'_>, host: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| m == query.method))
            && self.matches_host(query, host)
            && self.headers.iter().all(|(name, wanted)| {
                query.headers.iter().any(|(n, value)| same_name(n, name.as_bytes()) && wanted.iter().any(|w| w.matches(value)))
            })
            && (self.snis.is_empty() || !query.tls || self.matches_sni(query))
    }

    fn matches_host(&self, query: &Query<'_>, host: &str) -> bool {
        self.hosts.is_empty()
            || self.hosts.iter().any(|wanted| {
                let port = || split_port(query.host).1.unwrap_or(query.destination.1);
                wanted.name.matches(host) && wanted.port.is_none_or(|p| p == port())
            })
    }

    fn matches_sni(&self, query: &Query<'_>) -> bool {
        query.sni.is_some_and(|sni| {
            let sni = sni.trim_end_matches('.').to_ascii_lowercase();
            self.snis.iter().any(|name| name.matches(&sni))
        })
    }

    /// The part of the path that matches, and captures.
    pub fn matched_path(&self, path: &str) -> Option<(Option<Arc<str>>, Captures)> {
        match &self.paths {
            Paths::Any => Some((None, Captures::default())),
            Paths::Plain(prefixes) => {
                let prefix = prefixes.iter().find(|p| path.starts_with(&***p))?;
                Some((Some(Arc::clone(prefix)), Captures::default()))
            }
            Paths::Patterns(patterns) => patterns.iter().find_map(|(literal, pattern)| {
                let found = path.starts_with(literal.as_str()).then(|| pattern.captures(path))??;
                let text = |m: regex::Match<'_>| m.as_str().to_owned();
                let captures = Captures {
                    whole: found.get(0).map(text),
                    numbered: found.iter().skip(1).map(|m| m.map(text)).collect(),
                    named: pattern.capture_names().flatten().filter_map(|n| Some((n.to_owned(), text(found.name(n)?)))).collect(),
                };
                Some((found.get(0).map(|m| m.as_str().into()), captures))
            }),
        }
    }
}

/// Header names are the same without regard to case, and `-` is `_`.
fn same_name(a: &[u8], b: &[u8]) -> bool {
    let plain = |c: &u8| if *c == b'_' { b'-' } else { c.to_ascii_lowercase() };
    a.len() == b.len() && a.iter().map(plain).eq(b.iter().map(plain))
}
