//! One request and its answer, as plugins see it.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::http::{Body, Request, Response};
use crate::model::{Consumer, Route, Service};
use crate::plugin::{Instance, World};

/// One request from its arrival to its log record.
pub struct Exchange {
    /// The request; what plugins leave here goes upstream.
    pub request: Request,
    /// The path used for routing: normalized and decoded.
    pub path: String,
    /// 32 hexadecimal digits: `X-Kong-Request-Id`.
    pub request_id: RequestId,
    pub client: Client,
    /// Configuration that this request sees.
    pub world: Arc<dyn World>,
    pub route: Option<Via<Route>>,
    pub service: Option<Via<Service>>,
    /// Captures of the route's regular expression.
    pub captures: Captures,
    /// Where the request goes; plugins in access may change it.
    pub upstream: UpstreamRequest,
    pub authenticated: Authenticated,
    /// The answer; complete when header filters run.
    pub response: Response,
    /// Who made the answer.
    pub source: Source,
    pub timing: Timing,
    /// Each try to reach an upstream, in order.
    pub tries: SmallVec<[Try; 1]>,
    /// Correlation id, for the log record, once the plugin has set one.
    pub correlation_id: Option<String>,
    /// Bytes of the request head and body as received, and of the answer as sent.
    pub size: Sizes,
    /// How the answer went over an HTTP/1 connection, once its head is written.
    pub delivery: Option<Delivery>,
    /// The log record as JSON, once a plugin has asked for it.
    pub record: Option<Bytes>,
    /// Configurations that run on this request, in the order of their priority, as far as they are known.
    pub chosen: SmallVec<[Instance; 4]>,
    scratch: SmallVec<[(Uuid, Box<dyn Any>); 2]>,
}

/// A row by way of what the snapshot has made of it. Most requests ask for nothing that only the row itself has, and do not
/// touch it: of many that come at random, it is not in the processor's caches.
#[derive(Clone)]
pub struct Via<T: 'static>(Arc<dyn AsRef<T> + Send + Sync>);

impl<T> Via<T> {
    pub fn new(entry: Arc<impl AsRef<T> + Send + Sync + 'static>) -> Self {
        Self(entry)
    }
}

impl<T> std::ops::Deref for Via<T> {
    type Target = T;

    fn deref(&self) -> &T {
        (*self.0).as_ref()
    }
}

/// A request id: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub [u8; 32]);

impl RequestId {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a request id is hexadecimal digits")
    }
}

impl From<[u64; 2]> for RequestId {
    fn from([high, low]: [u64; 2]) -> Self {
        let mut id = [0; 32];
        Uuid::from_u64_pair(high, low).as_simple().encode_lower(&mut id);
        Self(id)
    }
}

/// The client and the connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Address after `real_ip_header` was taken into account.
    pub ip: IpAddr,
    /// Address and port of the connection's other end.
    pub peer: std::net::SocketAddr,
    /// Whether the peer is in `trusted_ips`.
    pub trusted: bool,
    /// `http` or `https`, as the connection is.
    pub scheme: &'static str,
    /// Address and port of this end of the connection.
    pub local: IpAddr,
    pub port: u16,
    pub tls: Option<Arc<Tls>>,
}

impl Default for Client {
    fn default() -> Self {
        let ip = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        Self { ip, peer: (ip, 0).into(), trusted: false, scheme: "http", local: ip, port: 0, tls: None }
    }
}

/// What is known of a TLS connection.
#[derive(Debug, Default)]
pub struct Tls {
    /// `TLSv1.3`
    pub version: &'static str,
    /// `TLS_AES_256_GCM_SHA384`
    pub cipher: String,
    pub sni: Option<String>,
    /// The client's certificate chain, DER.
    pub client_chain: Vec<Vec<u8>>,
}

/// Captures of a route's regular expression.
#[derive(Clone, Debug, Default)]
pub struct Captures {
    /// What the whole expression matched.
    pub whole: Option<String>,
    /// By number; the first is group 1.
    pub numbered: Vec<Option<String>>,
    pub named: Vec<(String, String)>,
}

impl Captures {
    pub fn named(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// By number, from 1.
    pub fn number(&self, n: usize) -> Option<&str> {
        self.numbered.get(n.checked_sub(1)?)?.as_deref()
    }
}

/// Where a request goes.
#[derive(Clone, Debug, Default)]
pub struct UpstreamRequest {
    /// `http`, `https`, `grpc`, `grpcs`
    pub scheme: String,
    pub host: String,
    pub port: u16,
    /// Path and query sent upstream.
    pub target: String,
    /// Host header, when it is not to be derived from the target.
    pub host_header: Option<String>,
    /// `X-Forwarded-Prefix`, when the route stripped one.
    pub prefix: Option<String>,
}

impl UpstreamRequest {
    /// Forgets everything and keeps the memory.
    fn clear(&mut self) {
        self.scheme.clear();
        self.host.clear();
        self.port = 0;
        self.target.clear();
        self.host_header = None;
        self.prefix = None;
    }
}

/// Who the client turned out to be.
#[derive(Clone, Debug, Default)]
pub struct Authenticated {
    pub consumer: Option<Arc<Consumer>>,
    pub credential: Option<Credential>,
    /// Ids of the consumer groups of the consumer.
    pub groups: Vec<Uuid>,
    /// Groups that an authentication has from elsewhere: a directory, a session, a token.
    pub external_groups: Option<Vec<String>>,
}

/// A verified credential.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    pub id: String,
    /// Id of its consumer.
    pub consumer: Option<Uuid>,
}

/// Who made the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A service behind the gateway.
    Upstream,
    /// The gateway: a plugin, or an error.
    #[default]
    Gateway,
}

/// When what happened.
#[derive(Clone, Debug)]
pub struct Timing {
    pub started: Instant,
    pub started_at: SystemTime,
    /// When the first try to reach an upstream began: the end of the access phase.
    pub upstream_started: Option<Instant>,
    /// When the head of the upstream's answer was there.
    pub upstream_headers: Option<Instant>,
    /// When the upstream's body was read to its end.
    pub upstream_finished: Option<Instant>,
    pub finished: Option<Instant>,
}

impl Timing {
    fn starting() -> Self {
        Self {
            started: crate::clock::now(),
            started_at: SystemTime::now(),
            upstream_started: None,
            upstream_headers: None,
            upstream_finished: None,
            finished: None,
        }
    }

    /// The time of day at a moment of this request.
    pub fn time_of_day(&self, at: Instant) -> SystemTime {
        self.started_at + at.saturating_duration_since(self.started)
    }

    /// A moment before the client had the last byte, so that what it asks next comes after: for the order of log records.
    pub fn answered(&self) -> Instant {
        self.upstream_finished.unwrap_or(self.started)
    }
}

/// One try to reach an upstream.
#[derive(Clone, Debug)]
pub struct Try {
    pub ip: IpAddr,
    pub port: u16,
    /// When the balancer was asked for an address.
    pub asked: Instant,
    /// When there was one.
    pub started: Instant,
    /// The status that stands for the failure, when the try failed.
    pub failure: Option<u16>,
    /// Status of the answer, when there was one.
    pub status: Option<u16>,
}

/// Bytes on the wire towards the client, known when the log phase runs. Over HTTP/2 heads count as they are before they are
/// compressed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    pub request: u64,
    pub response: u64,
    /// Body bytes of the answer alone.
    pub response_body: u64,
}

/// How an answer went over an HTTP/1 connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The `Content-Length` that was sent.
    pub length: Option<u64>,
    /// The body was sent in chunks.
    pub chunked: bool,
    /// The connection stays open for another request.
    pub keep_alive: bool,
}

impl Exchange {
    pub fn new(request: Request, client: Client, world: Arc<dyn World>, request_id: RequestId) -> Self {
        let mut x = Self::blank(Arc::clone(&world));
        x.request = request;
        x.begin(&client, world, request_id);
        x
    }

    /// One whose request is still to be read, with a configuration in which there is nothing.
    pub fn blank(nothing: Arc<dyn World>) -> Self {
        Self {
            request: Request::default(),
            path: String::new(),
            request_id: RequestId([b'0'; 32]),
            client: Client::default(),
            world: nothing,
            route: None,
            service: None,
            captures: Captures::default(),
            upstream: UpstreamRequest::default(),
            authenticated: Authenticated::default(),
            response: Response::default(),
            source: Source::Gateway,
            timing: Timing::starting(),
            tries: SmallVec::new(),
            correlation_id: None,
            size: Sizes::default(),
            delivery: None,
            record: None,
            chosen: SmallVec::new(),
            scratch: SmallVec::new(),
        }
    }

    /// Begins once the head of the request was read.
    pub fn begin(&mut self, client: &Client, world: Arc<dyn World>, request_id: RequestId) {
        self.request_id = request_id;
        self.client.clone_from(client);
        self.world = world;
        self.timing = Timing::starting();
    }

    /// Lets go of everything, the configuration among it, and keeps memory for another request.
    pub fn clear(&mut self, nothing: &Arc<dyn World>) {
        self.request.body = Body::Empty;
        self.path.clear();
        self.world = Arc::clone(nothing);
        self.route = None;
        self.service = None;
        self.captures = Captures::default();
        self.upstream.clear();
        self.authenticated = Authenticated::default();
        self.response.status = 0;
        self.response.reason = None;
        self.response.headers.clear();
        self.response.body = Body::Empty;
        self.response.tunnel = None;
        self.source = Source::Gateway;
        self.tries.clear();
        self.correlation_id = None;
        self.size = Sizes::default();
        self.delivery = None;
        self.record = None;
        self.chosen.clear();
        self.scratch.clear();
    }

    /// Bytes that [`Exchange::clear`] would keep, about.
    pub fn memory(&self) -> usize {
        let texts = [&self.request.target, &self.path, &self.upstream.target];
        self.request.headers.memory() + self.response.headers.memory() + texts.iter().map(|t| t.capacity()).sum::<usize>()
    }

    /// Keeps something of this plugin instance from one phase to a later one.
    pub fn keep<T: 'static>(&mut self, instance: Uuid, value: T) {
        self.scratch.push((instance, Box::new(value)));
    }

    /// What [`Exchange::keep`] kept for this instance and type.
    pub fn kept<T: 'static>(&mut self, instance: Uuid) -> Option<&mut T> {
        self.scratch.iter_mut().filter(|(id, _)| *id == instance).find_map(|(_, value)| value.downcast_mut())
    }

    /// Takes back what [`Exchange::keep`] kept.
    pub fn take_kept<T: 'static>(&mut self, instance: Uuid) -> Option<Box<T>> {
        let at = self.scratch.iter().position(|(id, value)| *id == instance && value.is::<T>())?;
        self.scratch.swap_remove(at).1.downcast().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::RequestId;

    #[test]
    fn ids_are_hexadecimal() {
        for (high, low) in [(0, u64::MAX), (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210), (0x9a9a_0f0f_f0f0_a9a9, 1)] {
            assert_eq!(RequestId::from([high, low]).as_str(), format!("{high:016x}{low:016x}"));
        }
    }
}
