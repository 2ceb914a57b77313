//! The way of a request past the cache, phase by phase.
//!
//! access: a request that may be answered from the cache is, or it is to bring an answer. header_filter: whether the answer may be
//! kept. body_filter: the body is copied as it passes to the client, and stored with its last piece. An answer that breaks off, or
//! whose client leaves early, is not stored.

use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use crate::http::{Body, Headers, Method, Response};
use crate::plugin::cache::control::Directives;
use crate::plugin::cache::entry::{Entry, Key, Status};
use crate::plugin::cache::key::Recipe;
use crate::plugin::cache::media_type::MediaType;
use crate::plugin::cache::{Arriving, Cache, Fill, Storage, Turn, conditional};
use crate::plugin::counters::Moment;
use crate::plugin::{Exchange, Flow, Reply};

/// Fields of a connection, of one request, or of the cache itself: they are not kept.
const NOT_KEPT: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "age",
    "x-cache-key",
    "x-cache-status",
    "x-kong-proxy-latency",
    "x-kong-request-id",
    "x-kong-response-latency",
    "x-kong-upstream-latency",
    "x-kong-upstream-status",
];

/// What is kept, for how long, and what clients are told.
#[derive(Clone, Debug)]
pub struct Policy {
    pub methods: Vec<Method>,
    pub statuses: Vec<u16>,
    pub content_types: Vec<MediaType>,
    /// Seconds for which answers are fresh, when they do not say themselves.
    pub ttl: u64,
    /// Seconds for which answers are kept, fresh or not; 0 is without end.
    pub storage_ttl: Option<u64>,
    /// Whether `Cache-Control` and `Expires` of requests and answers count.
    pub cache_control: bool,
    pub key: Recipe,
    pub told: Told,
}

/// Which fields clients are told.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub age: bool,
    pub status: bool,
    pub key: bool,
}

/// A configuration that caches.
#[derive(Debug)]
pub struct Caching {
    policy: Policy,
    storage: Storage,
    /// Of the plugin row.
    id: Uuid,
}

/// What access found out for the phases that follow. A hit leaves nothing.
enum Outcome {
    Bypass,
    /// The request asks the upstream.
    Asks {
        fill: Fill,
        epoch: u32,
        status: Status,
    },
}

/// An answer on its way to the client and into the cache.
struct Passing {
    fill: Fill,
    epoch: u32,
    status: Status,
    headers: Headers,
    body: Arriving,
    ttl: u64,
}

impl Caching {
    pub fn new(policy: Policy, storage: Storage, id: Uuid) -> Self {
        Self { policy, storage, id }
    }

    /// The cache of this node.
    pub fn cache(&self) -> &Cache {
        self.storage.local()
    }

    pub async fn access(&self, x: &mut Exchange) -> Flow {
        let asked = if self.policy.cache_control { Directives::of(&x.request.headers) } else { Directives::default() };
        if !self.may_answer(x, &asked) {
            x.keep(self.id, Outcome::Bypass);
            return Ok(());
        }
        let key = self.policy.key.key(x);
        let now = Moment::from(x.timing.started_at);
        let mut found = self.storage.find(&key, now).await;
        if let Some(entry) = found.as_deref().filter(|entry| self.suits(entry, now, &asked)) {
            return Err(self.serve(x, &key, entry, now));
        }
        if found.is_none() && asked.only_if_cached {
            let reply = Reply::empty(504);
            return Err(if self.told(x).key { reply.header("X-Cache-Key", key.hex()) } else { reply });
        }
        let mut epoch = self.storage.epoch(&key);
        let fills = &self.storage.local().fills;
        let fill = match fills.turn(key, now) {
            Turn::Ask(fill) => fill,
            // the bodies of other methods may differ under one key
            Turn::Wait(_) if !matches!(x.request.method, Method::Get | Method::Head) => fills.alone(key),
            Turn::Wait(waiting) => {
                // boxed, so that requests that do not wait are no larger for it
                let waited = Box::pin(waiting.over()).await;
                let now = Moment::from(SystemTime::now());
                epoch = self.storage.epoch(&key);
                found = self.storage.find(&key, now).await;
                if let Some(entry) = found.as_deref().filter(|entry| self.suits(entry, now, &asked)) {
                    return Err(self.serve(x, &key, entry, now));
                }
                waited.in_vain()
            }
        };
        let status = if found.is_some() { Status::Refresh } else { Status::Miss };
        x.keep(self.id, Outcome::Asks { fill, epoch, status });
        Ok(())
    }

    pub fn header_filter(&self, x: &mut Exchange) {
        let Some(outcome) = x.take_kept::<Outcome>(self.id) else { return };
        let told = self.told(x);
        let Outcome::Asks { fill, epoch, status } = *outcome else {
            tell(&mut x.response, told, Status::Bypass, None);
            return;
        };
        let key = fill.key();
        let Some(ttl) = self.keeps(x) else {
            tell(&mut x.response, told, Status::Bypass, Some(&key));
            fill.give_up(Moment::from(SystemTime::now()));
            return;
        };
        tell(&mut x.response, told, status, Some(&key));
        let headers = kept(&x.response.headers);
        let body = Arriving::new(Arc::clone(self.storage.local()), x.response.body.length());
        x.keep(self.id, Passing { fill, epoch, status, headers, body, ttl });
    }

    pub fn body_filter(&self, x: &mut Exchange, chunk: &[u8], last: bool) {
        let Some(passing) = x.kept::<Passing>(self.id) else { return };
        let fits = passing.body.push(chunk);
        if fits && !last {
            return;
        }
        let Some(passing) = x.take_kept::<Passing>(self.id) else { return };
        let now = Moment::from(SystemTime::now());
        if fits {
            self.store(x, *passing, now);
        } else {
            passing.fill.give_up(now);
        }
    }

    /// Whether a request may be answered from the cache, or bring an answer for it.
    fn may_answer(&self, x: &Exchange, asked: &Directives) -> bool {
        let unwanted = || asked.no_store || asked.no_cache || x.request.headers.contains("authorization");
        self.policy.methods.contains(&x.request.method) && !(self.policy.cache_control && unwanted())
    }

    /// Whether this client takes this answer.
    fn suits(&self, entry: &Entry, now: Moment, asked: &Directives) -> bool {
        let age = entry.age(now);
        if !self.policy.cache_control {
            return age <= self.policy.ttl;
        }
        asked.max_age.is_none_or(|most| age <= most)
            && asked.max_stale.is_none_or(|most| age.saturating_sub(entry.ttl) <= most)
            && asked.min_fresh.is_none_or(|least| entry.ttl.saturating_sub(age) >= least)
    }

    /// Seconds for which the answer at hand is fresh; `None` when it may not be kept.
    fn keeps(&self, x: &Exchange) -> Option<u64> {
        let response = &x.response;
        if !self.policy.statuses.contains(&response.status) || response.tunnel.is_some() {
            return None;
        }
        // a part of a representation is not what the next client asks for
        if response.headers.contains("content-range") {
            return None;
        }
        let mut types = response.headers.get_all("content-type");
        let (Some(content_type), None) = (types.next(), types.next()) else { return None };
        let content_type = MediaType::parse(std::str::from_utf8(content_type).ok()?)?;
        if content_type.is_grpc() || !self.policy.content_types.iter().any(|configured| configured.matches(&content_type)) {
            return None;
        }
        if response.body.length().is_some_and(|length| length > self.storage.local().memory.largest() as u64) {
            return None;
        }
        if !self.policy.cache_control {
            return Some(self.policy.ttl);
        }
        let said = Directives::of(&response.headers);
        let lifetime = said.lifetime(&response.headers, SystemTime::now());
        (lifetime > 0 && !said.private && !said.no_store && !said.no_cache).then_some(lifetime)
    }

    fn store(&self, x: &Exchange, passing: Passing, now: Moment) {
        let Passing { fill, epoch, status, mut headers, mut body, ttl } = passing;
        let body = body.take();
        let announced = x.response.headers.get("content-length");
        if x.request.method == Method::Head || x.response.status == 304 {
            // the length of what GET would bring
            announced.inspect(|length| headers.append("Content-Length", length));
        } else {
            let length = itoa::Buffer::new().format(body.len()).to_owned();
            if announced.is_some_and(|announced| announced != length.as_bytes()) {
                tracing::debug!(key = %fill.key(), "an answer is shorter than announced and is not kept");
                return;
            }
            headers.append("Content-Length", length);
        }
        headers.shrink_to_fit();
        let kept_for = match self.policy.storage_ttl {
            Some(0) => u64::MAX,
            seconds => seconds.unwrap_or(ttl).saturating_mul(1000),
        };
        let expires = Moment(now.0.saturating_add(kept_for));
        let entry = Entry { status: x.response.status, headers, body, stored: now, ttl, expires, brought_by: status };
        self.storage.store(fill.key(), entry, epoch);
        fill.done();
    }

    /// Puts a kept answer into the exchange.
    fn serve(&self, x: &mut Exchange, key: &Key, entry: &Entry, now: Moment) -> Reply {
        let told = self.told(x);
        let known = conditional::is_known(&x.request, entry);
        let response = &mut x.response;
        response.status = entry.status;
        response.reason = None;
        response.headers.copy_from(&entry.headers);
        response.body = entry.body.clone().into();
        if known {
            response.status = 304;
            response.body = Body::Empty;
            conditional::strip(&mut response.headers);
        }
        // none of these is kept: they need not be looked for
        if told.age {
            response.headers.append_checked(b"Age", itoa::Buffer::new().format(entry.age(now)).as_bytes());
        }
        if told.status {
            response.headers.append_checked(b"X-Cache-Status", Status::Hit.as_str().as_bytes());
        }
        if told.key {
            response.headers.append_checked(b"X-Cache-Key", &key.hex());
        }
        Reply::in_place(x)
    }

    /// A client that sends `Kong-Debug` is told everything.
    fn told(&self, x: &Exchange) -> Told {
        if x.request.headers.contains("kong-debug") { Told { age: true, status: true, key: true } } else { self.policy.told }
    }
}

/// Tells how a request fared whose answer comes from the upstream.
fn tell(response: &mut Response, told: Told, status: Status, key: Option<&Key>) {
    if told.status {
        response.headers.set("X-Cache-Status", status.as_str());
    }
    if let Some(key) = key.filter(|_| told.key) {
        response.headers.set("X-Cache-Key", key.hex());
    }
}

/// The fields of an answer that are kept, without its length.
fn kept(headers: &Headers) -> Headers {
    let mut kept = Headers::new();
    for (name, value) in headers.iter() {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if !NOT_KEPT.iter().any(|name| is(name)) && !is("content-length") && !is_what_remains(name) {
            kept.append(name, value);
        }
    }
    kept
}

/// Whether a field tells a client what is left of its limits: `X-RateLimit-Remaining-Minute`.
fn is_what_remains(name: &[u8]) -> bool {
    const PART: &[u8] = b"ratelimit-remaining";
    name.windows(PART.len()).any(|part| part.eq_ignore_ascii_case(PART))
}
