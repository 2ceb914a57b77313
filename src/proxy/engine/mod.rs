//! The phase engine: a request from its arrival to its log record.
//!
//! rewrite -> route -> access -> upstream -> header filters -> body filters -> log. An answer that the gateway makes on
//! the way ends the way to the upstream; filters and log still run.
//!
//! | module | what it holds |
//! |---|---|
//! | [`access_log`] | a line for each request |
//! | [`answer`] | header rules of answers |
//! | [`error_body`] | bodies of the gateway's own answers |
//! | [`forward`] | the head of the forwarded request |
//! | [`real_ip`] | who the client is behind trusted peers |
//! | [`tries`] | target, connection, retries |

mod access_log;
pub mod answer;
pub mod error_body;
pub mod forward;
pub mod real_ip;
mod tries;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::clock;
use crate::http::{Request, Response};
use crate::plugin::exchange::{RequestId, Source, Via};
use crate::plugin::files::File;
use crate::plugin::reply::ReplyBody;
use crate::plugin::world::Nothing;
use crate::plugin::{Exchange, Instance, Phases, Reply, World};
use crate::proxy::client::Client;
use crate::proxy::handler::{Connection, End, Handler};
use crate::router::normalize;
use crate::snapshot::{Plan, Snapshot, Speaks};
use answer::Added;
use error_body::{Fallback, Form, Templates};
use real_ip::RealIp;

/// What the engine needs of the settings.
pub struct Terms {
    pub added: Added,
    /// The request id goes upstream too (`headers_upstream`).
    pub request_id_upstream: bool,
    /// Name and version in `Server`, and in `Via` towards upstreams: `kong/3.10.0`.
    pub product: String,
    /// What is added to `Via` in answers: `1.1 kong/3.10.0`.
    pub via: String,
    pub error_default_form: Form,
    pub templates: Templates,
    pub real_ip: RealIp,
    pub allow_debug_header: bool,
    /// Most bytes of a request body that are read before the upstream is contacted.
    pub request_buffer: usize,
    /// Largest request body; 0 is no limit.
    pub max_body_size: u64,
    /// The file for a line per request.
    pub access_log: Option<Arc<File>>,
}

/// The engine of one worker.
pub struct Engine {
    terms: Arc<Terms>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    client: Rc<Client>,
    draining: Arc<AtomicBool>,
    ids: Cell<[u64; 2]>,
    /// Exchanges whose memory is used again.
    spare: RefCell<Spare>,
    /// What these hold meanwhile, so that an old configuration is not kept by them.
    nothing: Arc<dyn World>,
}

/// Most exchanges that are kept, and most memory of one.
const SPARE: usize = 64;
const SPARE_SIZE: usize = 16 * 1024;

/// Boxed, because servers hold an exchange across awaits and it is large.
#[allow(clippy::vec_box, reason = "the boxes themselves are used again")]
type Spare = Vec<Box<Exchange>>;

/// Where the answer came from, which decides on its headers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// By an upstream.
    Upstream,
    /// By a plugin that keeps what an upstream answered earlier.
    Kept,
    /// By the gateway, after an upstream was tried.
    Tried,
    /// By the gateway, before.
    Gateway,
}

impl Engine {
    pub fn new(terms: Arc<Terms>, snapshot: Arc<ArcSwap<Snapshot>>, client: Rc<Client>, draining: Arc<AtomicBool>) -> Self {
        let seed: [u64; 2] = [rand::random(), rand::random::<u64>() | 1];
        Self { terms, snapshot, client, draining, ids: Cell::new(seed), spare: RefCell::default(), nothing: Arc::new(Nothing) }
    }

    /// 128 bits that no other request has.
    fn request_id(&self) -> RequestId {
        let [mut a, mut b] = self.ids.get();
        // xoroshiro128+: unique and fast; ids are no secret
        b ^= a;
        a = a.rotate_left(24) ^ b ^ (b << 16);
        b = b.rotate_left(37);
        self.ids.set([a, b]);
        RequestId::from([a.wrapping_add(b), a])
    }

    /// Everything up to the answer. `Err` is an answer of the gateway.
    async fn answer(&self, x: &mut Exchange, snapshot: &Snapshot, answered: &mut Answered) -> Result<(), Failed> {
        x.path.clear();
        x.path.push_str(&normalize(x.request.raw_path()));
        for instance in snapshot.rewriters() {
            instance.rewrite(x).await?;
        }
        let Some(found) = snapshot.find_route(x) else {
            snapshot.global_plan().collect_rest(x, 0);
            return Err(Reply::error(404, "no Route matched with those values").into());
        };
        let entry = found.entry;
        x.captures = found.captures;
        x.route = Some(Via::new(Arc::clone(entry)));
        x.service = entry.service.as_ref().map(|service| Via::new(Arc::clone(service)));
        if let Err(reply) = protocol_check(x, entry.speaks) {
            entry.plan.collect_rest(x, 0);
            return Err(reply.into());
        }
        if let Some(service) = &entry.service {
            service.address(x, found.prefix, entry.way);
        }
        self.access(x, &entry.plan).await?;
        let Some(service) = &entry.service else {
            return Err(Reply::error(503, "no Service found with those values").into());
        };
        self.limit_body(x)?;
        *answered = Answered::Tried;
        self.proxy(x, snapshot, service, entry.buffers).await?;
        *answered = Answered::Upstream;
        Ok(())
    }

    async fn access(&self, x: &mut Exchange, plan: &Plan) -> Result<(), Reply> {
        for (at, slot) in plan.slots.iter().enumerate() {
            let Some(instance) = slot.pick(x.authenticated.consumer.as_ref().map(|c| c.id), &x.authenticated.groups) else { continue };
            let instance = instance.clone();
            x.chosen.push(instance.clone());
            if slot.phases.has(Phases::ACCESS)
                && let Err(reply) = instance.access(x).await
            {
                plan.collect_rest(x, at + 1);
                return Err(reply);
            }
        }
        Ok(())
    }

    fn limit_body(&self, x: &mut Exchange) -> Result<(), Failed> {
        match (self.terms.max_body_size, x.request.body.length()) {
            (0, _) => Ok(()),
            (limit, Some(n)) if n > limit => Err(Failed::proxy(Reply::status(413))),
            (limit, None) => {
                x.request.body.limit(limit);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Completes `x.response`: headers that the gateway adds, header filters.
    fn complete(&self, x: &mut Exchange, answered: Answered) {
        if answered == Answered::Upstream {
            x.source = Source::Upstream;
            let te_trailers = x.request.headers.contains("te");
            answer::clean(x, &self.terms.added, te_trailers);
        } else {
            x.source = Source::Gateway;
        }
        for_chosen(x, Phases::HEADER_FILTER, Instance::header_filter);
        let rewritten = x.chosen.iter().any(|i| i.descriptor.changes_body && i.descriptor.phases.has(Phases::BODY_FILTER));
        if rewritten && !x.response.body.is_empty() {
            x.response.body_will_change();
        }
        // what nginx and Kong add comes after the plugins, which do not see it and cannot take it away
        let tried = answered != Answered::Gateway;
        match answered {
            Answered::Upstream | Answered::Kept => answer::proxied(x, &self.terms.added, &self.terms.product, &self.terms.via),
            Answered::Tried | Answered::Gateway => answer::own(x, &self.terms.added, &self.terms.product, &self.terms.via, tried),
        }
        answer::latencies(x, &self.terms.added, tried);
        if self.terms.allow_debug_header && x.request.headers.contains("kong-debug") {
            debug_headers(x);
        }
    }

    fn render(&self, x: &mut Exchange, failed: Failed) {
        let form = Form::of(Some(&x.request), failed.fallback(self.terms.error_default_form));
        error_body::render(failed.reply, form, &x.request_id, &self.terms.templates, &mut x.response);
    }
}

impl Handler for Engine {
    fn blank(&self) -> Box<Exchange> {
        let spare = self.spare.borrow_mut().pop();
        spare.unwrap_or_else(|| Box::new(Exchange::blank(Arc::clone(&self.nothing))))
    }

    fn begin(&self, x: &mut Exchange, connection: &Rc<Connection>) {
        x.begin(&connection.client, self.snapshot.load_full(), self.request_id());
        self.terms.real_ip.apply(&mut x.client, connection.proxied.map(|(from, _)| from), &x.request.headers);
    }

    async fn respond(&self, x: &mut Exchange) {
        let world = Arc::clone(&x.world);
        let Some(snapshot) = world.as_any().downcast_ref::<Snapshot>() else { return };
        let mut answered = Answered::Gateway;
        match self.answer(x, snapshot, &mut answered).await {
            Ok(()) => {}
            Err(failed) if failed.reply.body == ReplyBody::InPlace => answered = Answered::Kept,
            Err(failed) => self.render(x, failed),
        }
        self.complete(x, answered);
    }

    fn filter(&self, x: &mut Exchange, chunk: &mut Bytes, last: bool) {
        if last && x.source == Source::Upstream {
            x.timing.upstream_finished = Some(clock::now());
        }
        if x.chosen.is_empty() {
            return;
        }
        for_chosen(x, Phases::BODY_FILTER, |instance, x| instance.body_filter(x, chunk, last));
    }

    fn finish(&self, mut x: Box<Exchange>, _end: End) {
        x.timing.finished = Some(clock::now());
        if x.response.status == 0 {
            // nginx's own: the client was gone before there was an answer
            x.response.status = 499;
        }
        for_chosen(&mut x, Phases::LOG, Instance::log);
        if let Some(file) = &self.terms.access_log {
            file.append(access_log::line(&x), x.timing.answered(), false);
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE && x.memory() <= SPARE_SIZE {
            x.clear(&self.nothing);
            spare.push(x);
        }
    }

    fn refuse(&self, status: u16, request: Option<&Request>, _: &Rc<Connection>) -> Response {
        let mut response = Response::default();
        let id = self.request_id();
        let form = Form::of(request, Fallback::ContentTypeOr(self.terms.error_default_form));
        let status_sent = if matches!(status, 494 | 497) { 400 } else { status };
        let reply = Reply::error(status_sent, error_body::default_message(status));
        error_body::render(reply, form, &id, &self.terms.templates, &mut response);
        if matches!(status, 501 | 505) {
            // what nginx itself does not speak it answers with its own page
            error_body::put_nginx_page(&mut response);
        }
        let added = &self.terms.added;
        response.headers.append("Date", answer::now());
        if added.server {
            response.headers.append("Server", &self.terms.product);
        }
        if added.response_latency {
            response.headers.append("X-Kong-Response-Latency", "0");
        }
        if added.request_id {
            response.headers.append("X-Kong-Request-Id", id.0);
        }
        response
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Runs a hook of every chosen plugin that has it.
fn for_chosen(x: &mut Exchange, phase: Phases, mut hook: impl FnMut(&Instance, &mut Exchange)) {
    if x.chosen.is_empty() {
        return;
    }
    let chosen = std::mem::take(&mut x.chosen);
    for instance in chosen.iter().filter(|i| i.descriptor.phases.has(phase)) {
        hook(instance, x);
    }
    x.chosen = chosen;
}

/// Answers that depend on the protocols of the route alone (426, redirects, gRPC).
fn protocol_check(x: &Exchange, speaks: Speaks) -> Result<(), Reply> {
    if speaks.http && !speaks.grpc && !speaks.grpcs {
        return Ok(());
    }
    let Some(route) = &x.route else { return Ok(()) };
    let headers = &x.request.headers;
    let forwarded = headers.get_str("x-forwarded-proto").filter(|_| x.client.trusted);
    let scheme = forwarded.unwrap_or(x.client.scheme);
    if speaks.grpc || speaks.grpcs {
        let grpc = headers.get_str("content-type").is_some_and(|t| t.starts_with("application/grpc"));
        if !grpc {
            return Err(Reply::error(415, "Non-gRPC request matched gRPC route"));
        }
        if x.request.version != crate::http::Version::Http2 {
            return Err(Reply::error(426, "Please use HTTP2 protocol").header("Connection", "Upgrade").header("Upgrade", "HTTP/2"));
        }
        if scheme == "http" && !speaks.grpc {
            let reply = Reply::empty(200).header("Content-Type", "application/grpc").header("grpc-status", "1");
            return Err(reply.header("grpc-message", "gRPC request matched gRPCs route"));
        }
        return Ok(());
    }
    if scheme == "http" && speaks.https && !speaks.http {
        let status = route.https_redirect_status_code;
        if status == 426 {
            let reply = Reply::error(426, "Please use HTTPS protocol");
            return Err(reply.header("Connection", "Upgrade").header("Upgrade", "TLS/1.2, HTTP/1.1"));
        }
        let host = headers.get("x-forwarded-host").filter(|_| x.client.trusted).or(headers.get("host")).unwrap_or_default();
        let location = [b"https://", forward::without_port(host), x.request.target.as_bytes()].concat();
        return Err(Reply::bytes(status, "text/html", error_body::nginx_page(status)).header("Location", location));
    }
    Ok(())
}

fn debug_headers(x: &mut Exchange) {
    let headers = &mut x.response.headers;
    if let Some(route) = &x.route {
        headers.set("Kong-Route-Id", route.id.to_string());
        if let Some(name) = &route.name {
            headers.set("Kong-Route-Name", name.as_bytes());
        }
    }
    if let Some(service) = &x.service {
        headers.set("Kong-Service-Id", service.id.to_string());
        if let Some(name) = &service.name {
            headers.set("Kong-Service-Name", name.as_bytes());
        }
    }
}

/// An answer of the gateway, and whose form it takes.
pub(crate) struct Failed {
    reply: Reply,
    /// An error of the transport, as nginx raises it, not of the gateway's logic.
    transport: bool,
}

impl Failed {
    fn proxy(reply: Reply) -> Self {
        Self { reply, transport: true }
    }

    fn fallback(&self, default: Form) -> Fallback {
        if self.transport { Fallback::ContentTypeOr(default) } else { Fallback::Json }
    }
}

impl From<Reply> for Failed {
    fn from(reply: Reply) -> Self {
        Self { reply, transport: false }
    }
}
