//! Routes of the expressions flavour, on Kong's own engine, inside buckets that narrow by path.
//!
//! The engine tries one expression after the other. An expression that can only hold for paths with a certain beginning
//! (`http.path ^= "/a" && ...`) therefore goes into the bucket of that beginning, and a request asks only the buckets that
//! its own path leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use ahash::AHashMap;
use atc_router::ast::{BinaryOperator, Expression, LogicalExpression, Type, Value};
use atc_router::context::Context;
use atc_router::schema::Schema;
use uuid::Uuid;

use crate::flat_map::{FlatMap, Keyed};
use crate::plugin::exchange::Captures;
use crate::router::pattern::split_port;
use crate::router::{Match, Query};

type Engine = atc_router::router::Router<'static>;

/// The fields that an expression may name.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let mut schema = Schema::default();
    for name in
        ["net.protocol", "tls.sni", "http.method", "http.host", "http.path", "http.path.segments.*", "http.headers.*", "http.queries.*"]
    {
        schema.add_field(name, Type::String);
    }
    for name in ["net.src.port", "net.dst.port", "http.path.segments.len"] {
        schema.add_field(name, Type::Int);
    }
    for name in ["net.src.ip", "net.dst.ip"] {
        schema.add_field(name, Type::IpAddr);
    }
    schema
});

/// Checks an expression; the error is the engine's text.
pub fn check(expression: &str) -> Result<(), String> {
    let mut engine = Engine::new(&SCHEMA);
    engine.add_matcher(0, Uuid::nil(), expression)?;
    let bad_segment =
        engine.fields.keys().filter_map(|f| f.strip_prefix("http.path.segments.")).any(|s| segment_range(s).is_none() && s != "len");
    if bad_segment { Err("illformed http.path.segments.* field".to_owned()) } else { Ok(()) }
}

/// The expressions of one configuration. A clone costs nothing and keeps its version.
#[derive(Clone, Default)]
pub struct Expressions {
    /// By the beginning that a path must have; expressions that say nothing of it stand under the empty one.
    buckets: FlatMap<Arc<Bucket>>,
    /// Lengths of the beginnings.
    lengths: Arc<[usize]>,
    /// Fields that the expressions name.
    fields: Arc<[String]>,
}

struct Bucket {
    beginning: String,
    engine: Engine,
    /// Priority and place of each route.
    places: AHashMap<Uuid, (u64, usize)>,
}

/// Makes [`Expressions`], one after the other; the engines of buckets in which nothing has changed are used again.
#[derive(Default)]
pub struct Builder {
    members: BTreeMap<String, BTreeMap<usize, Member>>,
    /// The bucket of each place.
    beginnings: AHashMap<usize, String>,
    changed: BTreeSet<String>,
    made: Expressions,
}

struct Member {
    id: Uuid,
    priority: u64,
    expression: String,
}

impl Builder {
    pub fn insert(&mut self, place: usize, id: Uuid, priority: u64, expression: &str) -> Result<(), String> {
        check(expression)?;
        let beginning = beginning(&Expression::from_text(expression)?).unwrap_or_default();
        let member = Member { id, priority, expression: expression.to_owned() };
        self.members.entry(beginning.clone()).or_default().insert(place, member);
        self.changed.insert(beginning.clone());
        self.beginnings.insert(place, beginning);
        Ok(())
    }

    pub fn remove(&mut self, place: usize) {
        let Some(beginning) = self.beginnings.remove(&place) else { return };
        if let Some(members) = self.members.get_mut(&beginning) {
            members.remove(&place);
            if members.is_empty() {
                self.members.remove(&beginning);
            }
        }
        self.changed.insert(beginning);
    }

    /// The expressions that are in their places now.
    pub fn made(&mut self) -> Expressions {
        if self.changed.is_empty() {
            return self.made.clone();
        }
        for beginning in std::mem::take(&mut self.changed) {
            match self.members.get(&beginning) {
                Some(members) => self.made.buckets.insert(&*beginning, Arc::new(Bucket::new(&beginning, members))),
                None => self.made.buckets.remove(beginning.as_str()),
            };
        }
        let lengths: BTreeSet<usize> = self.members.keys().map(String::len).collect();
        self.made.lengths = lengths.into_iter().collect();
        let fields: BTreeSet<&String> = self.made.buckets.values().flat_map(|bucket| bucket.engine.fields.keys()).collect();
        self.made.fields = fields.into_iter().cloned().collect();
        self.made.clone()
    }
}

impl Keyed<str> for Arc<Bucket> {
    fn has_key(&self, beginning: &str) -> bool {
        self.beginning == beginning
    }
}

impl Bucket {
    fn new(beginning: &str, members: &BTreeMap<usize, Member>) -> Self {
        let mut bucket = Self { beginning: beginning.to_owned(), engine: Engine::new(&SCHEMA), places: AHashMap::new() };
        for (place, member) in members {
            let added = bucket.engine.add_matcher(usize::try_from(member.priority).unwrap_or(usize::MAX), member.id, &member.expression);
            match added {
                Ok(()) => {
                    bucket.places.insert(member.id, (member.priority, *place));
                }
                Err(error) => tracing::error!(route = %member.id, error, "a route whose expression cannot be read is left out"),
            }
        }
        bucket
    }
}

/// Reads an expression's text.
trait FromText: Sized {
    fn from_text(text: &str) -> Result<Self, String>;
}

impl FromText for Expression {
    fn from_text(text: &str) -> Result<Self, String> {
        atc_router::parser::parse(text).map_err(|e| e.to_string())
    }
}

/// The beginning without which the expression cannot hold.
fn beginning(expression: &Expression) -> Option<String> {
    match expression {
        Expression::Predicate(p) if p.lhs.var_name == "http.path" && p.lhs.transformations.is_empty() => match (&p.op, &p.rhs) {
            (BinaryOperator::Equals | BinaryOperator::Prefix, Value::String(text)) => Some(text.clone()),
            _ => None,
        },
        Expression::Predicate(_) => None,
        Expression::Logical(logical) => match logical.as_ref() {
            LogicalExpression::And(a, b) => match (beginning(a), beginning(b)) {
                (Some(a), Some(b)) => Some(if a.len() >= b.len() { a } else { b }),
                (a, b) => a.or(b),
            },
            LogicalExpression::Or(..) | LogicalExpression::Not(_) => None,
        },
    }
}

impl Expressions {
    /// The expression of the highest priority that holds.
    pub fn find(&self, query: &Query<'_>) -> Option<Match> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut context = Context::new(&SCHEMA);
        let mut best: Option<((u64, Uuid), Match)> = None;
        let mut filled = false;
        for length in self.lengths.iter() {
            let Some(bucket) = query.path.get(..*length).and_then(|start| self.buckets.get(start)) else { continue };
            if !std::mem::replace(&mut filled, true) {
                self.fields.iter().for_each(|field| fill(&mut context, field, query));
            }
            if !bucket.engine.execute(&mut context) {
                continue;
            }
            let Some(found) = context.result.take() else { continue };
            let Some((priority, place)) = bucket.places.get(&found.uuid) else { continue };
            if best.as_ref().is_none_or(|(key, _)| (*priority, found.uuid) > *key) {
                let prefix = match found.matches.get("http.path") {
                    Some(Value::String(text)) => Some(text.len()),
                    _ => None,
                };
                best = Some(((*priority, found.uuid), Match { place: *place, prefix, captures: captures(found.captures.into_iter()) }));
            }
        }
        best.map(|(_, found)| found)
    }
}

/// The engine names captures by number and by name in one table.
fn captures(found: impl Iterator<Item = (String, String)>) -> Captures {
    let mut out = Captures::default();
    for (name, text) in found {
        match name.parse::<usize>() {
            Ok(0) => {}
            Ok(n) => {
                if out.numbered.len() < n {
                    out.numbered.resize(n, None);
                }
                out.numbered[n - 1] = Some(text);
            }
            Err(_) => out.named.push((name, text)),
        }
    }
    out
}

/// Puts a field's value into the context, if the request has one.
fn fill(context: &mut Context<'_>, field: &str, query: &Query<'_>) {
    let mut put = |value: &str| context.add_value(field, Value::String(value.to_owned()));
    match field {
        "net.protocol" => put(query.scheme),
        "tls.sni" => {
            if let Some(sni) = query.sni {
                put(sni);
            }
        }
        "http.method" => put(query.method),
        "http.host" => put(split_port(query.host()).0),
        "http.path" => put(query.path),
        "net.src.ip" => context.add_value(field, Value::IpAddr(query.source.ip())),
        "net.dst.ip" => context.add_value(field, Value::IpAddr(query.destination.0)),
        "net.src.port" => context.add_value(field, Value::Int(query.source.port().into())),
        "net.dst.port" => context.add_value(field, Value::Int(query.destination.1.into())),
        _ => {
            if let Some(name) = field.strip_prefix("http.headers.") {
                for (n, value) in query.headers.iter() {
                    if n.len() == name.len()
                        && n.iter().zip(name.bytes()).all(|(a, b)| *a == b'-' && b == b'_' || a.eq_ignore_ascii_case(&b))
                    {
                        put(&String::from_utf8_lossy(value));
                    }
                }
            } else if let Some(name) = field.strip_prefix("http.queries.") {
                query_values(query.query.unwrap_or_default(), name).for_each(|value| put(&value));
            } else if let Some(segment) = field.strip_prefix("http.path.segments.") {
                let segments: Vec<&str> = query.path.split('/').filter(|s| !s.is_empty()).collect();
                if segment == "len" {
                    context.add_value(field, Value::Int(i64::try_from(segments.len()).unwrap_or(i64::MAX)));
                } else if let Some(range) = segment_range(segment).and_then(|(first, last)| segments.get(first..=last)) {
                    put(&range.join("/"));
                }
            }
        }
    }
}

/// `1` or `0_2`: the first and the last segment.
fn segment_range(text: &str) -> Option<(usize, usize)> {
    let (first, last) = text.split_once('_').unwrap_or((text, text));
    let range = (first.parse().ok()?, last.parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

/// The decoded values of a query argument; one without `=` is empty.
fn query_values(query: &str, name: &str) -> impl Iterator<Item = String> {
    let decode = |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}
