//! The log record of a request, in Kong's shape: what file-log, http-log and the others write.
//!
//! It is made in the log phase, when the first plugin asks for it, and kept for those that come after.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::http::Headers;
use crate::model::{WORKSPACE, WORKSPACE_ID};
use crate::plugin::exchange::{Delivery, Source, Timing, Try};
use crate::plugin::{Exchange, query};

/// The record as JSON text without a line end.
pub fn record(x: &mut Exchange) -> Bytes {
    if let Some(record) = &x.record {
        return record.clone();
    }
    let mut text = Vec::with_capacity(2048);
    // what is written is made here and goes into memory: there is nothing to fail
    let _ = serde_json::to_writer(&mut text, &Record::of(x));
    let record = Bytes::from(text);
    x.record = Some(record.clone());
    record
}

/// How long what took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// In the gateway and its plugins: until the upstream was asked, and while its answer was passed on.
    pub kong: u64,
    /// Until the head of the upstream's answer was there; -1 when no upstream was asked.
    pub proxy: i64,
    /// From the first byte of the request to the last of the answer.
    pub request: u64,
    /// From the head of the upstream's answer to its last byte.
    pub receive: u64,
}

impl Latencies {
    pub fn of(x: &Exchange) -> Self {
        let timing = &x.timing;
        let finished = timing.finished.unwrap_or_else(std::time::Instant::now);
        let whole = finished.saturating_duration_since(timing.started);
        let Some(asked) = timing.upstream_started else {
            return Self { kong: ms(whole), proxy: -1, request: ms(whole), receive: 0 };
        };
        let answered = timing.upstream_headers.unwrap_or(finished);
        let receive = timing.upstream_finished.map_or(Duration::ZERO, |end| end.saturating_duration_since(answered));
        Self {
            kong: ms(asked.saturating_duration_since(timing.started)) + ms(receive),
            proxy: i64::try_from(ms(answered.saturating_duration_since(asked))).unwrap_or(i64::MAX),
            request: ms(whole),
            receive: ms(receive),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the epoch.
pub fn milliseconds(at: SystemTime) -> u64 {
    ms(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The host that the client asked for: without a port, in lower case; `kong` when it did not say.
pub fn host(x: &Exchange) -> Cow<'_, str> {
    let Some(host) = x.request.headers.get_str("host").filter(|host| !host.is_empty()) else { return Cow::Borrowed("kong") };
    let name = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    if name.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }
}

/// `200`, or `502, 200` after two tries; empty when no upstream was asked.
pub fn upstream_status(x: &Exchange) -> String {
    let mut text = String::new();
    for status in x.tries.iter().filter_map(|t| t.status.or(t.failure)) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(itoa::Buffer::new().format(status));
    }
    text
}

#[derive(Serialize)]
struct Record<'a> {
    request: RequestPart<'a>,
    upstream_uri: &'a str,
    upstream_status: String,
    response: ResponsePart<'a>,
    latencies: Latencies,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<Tries<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticated_entity: Option<Credential<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<&'a RawValue>,
    client_ip: std::net::IpAddr,
    started_at: u64,
    source: &'static str,
    workspace: &'static str,
    workspace_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

#[derive(Serialize)]
struct RequestPart<'a> {
    id: &'a str,
    method: &'a str,
    uri: &'a str,
    url: String,
    querystring: Query<'a>,
    headers: Fields<'a>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsPart<'a>>,
}

#[derive(Serialize)]
struct TlsPart<'a> {
    version: &'a str,
    cipher: &'a str,
    client_verify: &'static str,
}

#[derive(Serialize)]
struct ResponsePart<'a> {
    status: u16,
    headers: Fields<'a>,
    size: u64,
}

#[derive(Serialize)]
struct Credential<'a> {
    id: &'a str,
}

impl<'a> Record<'a> {
    fn of(x: &'a Exchange) -> Self {
        let tls = x.client.tls.as_ref().map(|tls| TlsPart { version: tls.version, cipher: &tls.cipher, client_verify: "NONE" });
        let logged = |entity, id: Option<uuid::Uuid>| id.and_then(|id| x.world.logged(entity, id));
        let credential = x.authenticated.credential.as_ref();
        Self {
            request: RequestPart {
                id: x.request_id.as_str(),
                method: x.request.method.as_str(),
                uri: &x.request.target,
                url: format!("{}://{}:{}{}", x.client.scheme, host(x), x.client.port, x.request.target),
                querystring: Query(x.query()),
                headers: Fields { of: &x.request.headers, kind: Kind::Request },
                size: x.size.request,
                tls,
            },
            upstream_uri: &x.upstream.target,
            upstream_status: upstream_status(x),
            response: ResponsePart {
                status: x.response.status,
                headers: Fields { of: &x.response.headers, kind: Kind::Answer { source: x.source, delivery: x.delivery } },
                size: x.size.response,
            },
            latencies: Latencies::of(x),
            tries: x.route.is_some().then_some(Tries(&x.tries, &x.timing)),
            authenticated_entity: credential.map(|c| Credential { id: &c.id }),
            route: logged("routes", x.route.as_ref().map(|route| route.id)),
            service: logged("services", x.service.as_ref().map(|service| service.id)),
            consumer: logged("consumers", x.authenticated.consumer.as_ref().map(|consumer| consumer.id)),
            client_ip: x.client.ip,
            started_at: milliseconds(x.timing.started_at),
            source: if x.source == Source::Upstream { "upstream" } else { "kong" },
            workspace: WORKSPACE_ID,
            workspace_name: WORKSPACE,
            correlation_id: x.correlation_id.as_deref(),
        }
    }
}

/// Header fields as a table: names in lower case, several values of a name as a list.
struct Fields<'a> {
    of: &'a Headers,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Request,
    Answer { source: Source, delivery: Option<Delivery> },
}

impl Kind {
    /// Fields that the record does not show as they stand: what the connection made of them, and the Date that an answer of
    /// the gateway itself gets at the very end.
    fn hides(self, name: &str) -> bool {
        match self {
            Self::Request => false,
            Self::Answer { source, delivery } => match name {
                "connection" | "keep-alive" | "transfer-encoding" => true,
                "content-length" => delivery.is_some_and(|d| d.length.is_some()),
                "date" => source == Source::Gateway,
                _ => false,
            },
        }
    }

    fn is_secret(self, name: &str) -> bool {
        matches!(self, Self::Request) && matches!(name, "authorization" | "proxy-authorization")
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields: SmallVec<[(&[u8], &[u8]); 32]> = self.of.iter().collect();
        let mut map = serializer.serialize_map(None)?;
        let mut lower = String::new();
        for (at, (name, value)) in fields.iter().enumerate() {
            let same = |(other, _): &&(&[u8], &[u8])| other.eq_ignore_ascii_case(name);
            if fields[..at].iter().any(|field| same(&field)) {
                continue;
            }
            lower.clear();
            lower.extend(name.iter().map(|b| char::from(b.to_ascii_lowercase())));
            if self.kind.hides(&lower) {
                continue;
            }
            if self.kind.is_secret(&lower) {
                map.serialize_entry(&lower, "REDACTED")?;
            } else if fields[at + 1..].iter().any(|field| same(&field)) {
                let values: SmallVec<[_; 4]> = fields[at..].iter().filter(same).map(|(_, value)| String::from_utf8_lossy(value)).collect();
                map.serialize_entry(&lower, &values[..])?;
            } else {
                map.serialize_entry(&lower, &String::from_utf8_lossy(value))?;
            }
        }
        if let Kind::Answer { delivery: Some(delivery), .. } = self.kind {
            if let Some(length) = delivery.length {
                map.serialize_entry("content-length", itoa::Buffer::new().format(length))?;
            }
            if delivery.chunked {
                map.serialize_entry("transfer-encoding", "chunked")?;
            }
            map.serialize_entry("connection", if delivery.keep_alive { "keep-alive" } else { "close" })?;
        }
        map.end()
    }
}

/// A query as a table: decoded, `true` for a name without `=`, several values of a name as a list.
pub struct Query<'a>(pub &'a str);

impl Serialize for Query<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let arguments: SmallVec<[query::Argument; 8]> = query::arguments(self.0).collect();
        let mut map = serializer.serialize_map(None)?;
        for (at, argument) in arguments.iter().enumerate() {
            let same = |other: &&query::Argument| other.name == argument.name;
            if arguments[..at].iter().any(|other| same(&other)) {
                continue;
            }
            if arguments[at + 1..].iter().any(|other| same(&other)) {
                let values: SmallVec<[_; 4]> = arguments[at..].iter().filter(same).map(|a| Text(a.value.as_deref())).collect();
                map.serialize_entry(&argument.name, &values[..])?;
            } else {
                map.serialize_entry(&argument.name, &Text(argument.value.as_deref()))?;
            }
        }
        map.end()
    }
}

/// The value of an argument; `true` where there is none.
struct Text<'a>(Option<&'a str>);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(text) => serializer.serialize_str(text),
            None => serializer.serialize_bool(true),
        }
    }
}

struct Tries<'a>(&'a [Try], &'a Timing);

impl Serialize for Tries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for each in self.0 {
            let started = self.1.time_of_day(each.started).duration_since(UNIX_EPOCH).unwrap_or_default();
            let balancer = each.started.saturating_duration_since(each.asked);
            list.serialize_element(&Tried {
                ip: each.ip,
                port: each.port,
                balancer_start: ms(started),
                balancer_start_ns: nanoseconds(started),
                balancer_latency: ms(balancer),
                balancer_latency_ns: nanoseconds(balancer),
                state: each.failure.map(|_| "failed"),
                code: each.failure,
            })?;
        }
        list.end()
    }
}

#[derive(Serialize)]
struct Tried {
    ip: IpAddr,
    port: u16,
    balancer_start: u64,
    balancer_start_ns: u64,
    balancer_latency: u64,
    balancer_latency_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
