//! What a route asks of a request, and its priority.

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
    Plain(Vec<Box<str>>),
    /// Expressions with their literal beginnings, anchored at the start.
    Patterns(Vec<(String, Regex)>),
}

/// The greater one goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority([u64; 2]);

/// What a priority is made of, the first that differs decides.
struct Terms {
    kinds: usize,
    /// Kinds by weight; 0 but in the traditional flavour.
    category: u8,
    plain_hosts: bool,
    headers: usize,
    regex: bool,
    regex_priority: i64,
    length: usize,
}

impl From<Terms> for Priority {
    fn from(terms: Terms) -> Self {
        let Terms { kinds, category, plain_hosts, headers, regex, regex_priority, length } = terms;
        let above_zero = regex_priority.cast_unsigned() ^ 1 << 63;
        let bits = (kinds as u128) << 111
            | u128::from(category) << 106
            | u128::from(plain_hosts) << 105
            | (headers.min(255) as u128) << 97
            | u128::from(regex) << 96
            | u128::from(above_zero) << 32
            | u128::from(u32::try_from(length).unwrap_or(u32::MAX));
        Self([(bits >> 64) as u64, bits as u64])
    }
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
        let priority = Priority::from(Terms {
            kinds: present.iter().filter(|kind| **kind).count(),
            category: if flavor == Flavor::Traditional { category } else { 0 },
            plain_hosts: !hosts.is_empty() && hosts.iter().all(Host::is_plain),
            headers: headers.len(),
            regex,
            regex_priority,
            length,
        });
        Self { place, priority, hosts, paths, methods, headers, snis, created_at: route.created_at, id: route.id }
    }

    /// The beginnings of the paths that the entry may take.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        let (plain, patterns): (&[Box<str>], &[(String, Regex)]) = match &self.paths {
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
                let port = || split_port(query.host()).1.unwrap_or(query.destination.1);
                wanted.name.matches(host) && wanted.port.is_none_or(|p| p == port())
            })
    }

    fn matches_sni(&self, query: &Query<'_>) -> bool {
        query.sni.is_some_and(|sni| {
            let sni = sni.trim_end_matches('.').to_ascii_lowercase();
            self.snis.iter().any(|name| name.matches(&sni))
        })
    }

    /// Whether a path that has one of the beginnings is one of the entry's.
    pub fn matches_path(&self, path: &str) -> bool {
        match &self.paths {
            Paths::Any | Paths::Plain(_) => true,
            Paths::Patterns(patterns) => patterns.iter().any(|(literal, p)| path.starts_with(literal.as_str()) && p.is_match(path)),
        }
    }

    /// Whether the entry takes every request whose host and whose path's beginning are its own.
    pub fn asks_no_more(&self) -> bool {
        let asks = [self.methods.is_empty(), self.headers.is_empty(), self.snis.is_empty(), self.hosts.iter().all(|h| h.port.is_none())];
        asks.into_iter().all(|none| none) && !matches!(self.paths, Paths::Patterns(_))
    }

    /// What the entry's regular expression finds in the path: how much of it, and captures. Nothing for other entries.
    pub fn captures(&self, path: &str) -> Option<(usize, Captures)> {
        match &self.paths {
            Paths::Any | Paths::Plain(_) => None,
            Paths::Patterns(patterns) => patterns.iter().find_map(|(literal, pattern)| {
                let found = path.starts_with(literal.as_str()).then(|| pattern.captures(path))??;
                let text = |m: regex::Match<'_>| m.as_str().to_owned();
                let captures = Captures {
                    whole: found.get(0).map(text),
                    numbered: found.iter().skip(1).map(|m| m.map(text)).collect(),
                    named: pattern.capture_names().flatten().filter_map(|n| Some((n.to_owned(), text(found.name(n)?)))).collect(),
                };
                Some((found.get(0)?.len(), captures))
            }),
        }
    }
}

/// Header names are the same without regard to case, and `-` is `_`.
fn same_name(a: &[u8], b: &[u8]) -> bool {
    let plain = |c: &u8| if *c == b'_' { b'-' } else { c.to_ascii_lowercase() };
    a.len() == b.len() && a.iter().map(plain).eq(b.iter().map(plain))
}
