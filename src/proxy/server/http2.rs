//! HTTP/2 (RFC 9113) on the h2 crate: each stream is one exchange; windows are the back-pressure in both directions.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};

use crate::http::{Body, BodyError, BodySource, Headers, Method, Request, Response, Version, syntax};
use crate::plugin::Exchange;
use crate::proxy::handler::{Connection, End, Handler};
use crate::proxy::server::Worker;
use crate::proxy::server::counters::Phase;
use crate::proxy::server::worker::{Direction, Watched};
use crate::proxy::stream::{Rewound, Stream};

/// Bytes that a client may send of one body, and of all, before they are taken.
const WINDOW: u32 = 256 * 1024;
/// Bytes of one answer that wait for the client's window.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves a connection to its end.
pub async fn serve<H: Handler>(
    worker: &Rc<Worker<H>>,
    stream: Stream,
    read_ahead: BytesMut,
    connection: Rc<Connection>,
    watched: Rc<Watched>,
) {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(worker.shared.limits.streams)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(worker.shared.limits.head).unwrap_or(u32::MAX));
    let handshake = builder.handshake::<_, Bytes>(Rewound::new(stream, read_ahead.freeze()));
    let Ok(Ok(mut http2)) = tokio::time::timeout(worker.shared.limits.header_timeout, handshake).await else { return };
    let open = Rc::new(Cell::new(0_usize));
    let mut leaving = false;
    let mut drained = pin!(worker.shared.drained());
    loop {
        let accepted = poll_fn(|cx| {
            if !leaving && (drained.as_mut().poll(cx).is_ready() || is_idle(&watched, open.get())) {
                leaving = true;
                http2.graceful_shutdown();
            }
            http2.poll_accept(cx)
        });
        match accepted.await {
            Some(Ok((request, respond))) => {
                let guard = Open::new(&open, &watched);
                let exchange = exchange(Rc::clone(worker), request, respond, Rc::clone(&connection));
                tokio::task::spawn_local(async move {
                    exchange.await;
                    drop(guard);
                });
            }
            Some(Err(error)) => {
                tracing::debug!(%error, client = %connection.client.peer, "an HTTP/2 connection broke off");
                return;
            }
            None => return,
        }
    }
}

/// Whether no stream has been open for as long as a connection may be idle.
fn is_idle(watched: &Watched, open: usize) -> bool {
    if open > 0 {
        watched.moved(Direction::Read);
        return false;
    }
    watched.is_over(Direction::Read, watched.shared().limits.keepalive_timeout)
}

/// Counts a stream as open until it is dropped.
struct Open {
    open: Rc<Cell<usize>>,
    watched: Rc<Watched>,
}

impl Open {
    fn new(open: &Rc<Cell<usize>>, watched: &Rc<Watched>) -> Self {
        open.set(open.get() + 1);
        watched.enter(Phase::Writing);
        watched.shared().tally.request();
        Self { open: Rc::clone(open), watched: Rc::clone(watched) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.watched.enter(Phase::Waiting);
        }
    }
}

async fn exchange<H: Handler>(
    worker: Rc<Worker<H>>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    connection: Rc<Connection>,
) {
    let mut ours = worker.shared.request();
    let received = Rc::default();
    if let Err(status) = read(request, &mut ours, &received) {
        let mut response = worker.handler.refuse(status, Some(&ours), &connection);
        let head = ours.method == Method::Head;
        let body = std::mem::take(&mut response.body);
        let _ = send(&mut respond, &response, head, body, |_, _| {}).await;
        worker.shared.give_request(ours);
        return;
    }
    let head = ours.method == Method::Head;
    let asked = head_size(ours.method.as_str().len() + ours.target.len(), &ours.headers);
    let handler = &worker.handler;
    let mut x = handler.begin(ours, &connection);
    let gone = tokio::select! {
        biased;
        () = handler.respond(&mut x) => false,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => true,
    };
    let end = if gone {
        End::ClientGone
    } else {
        let body = std::mem::take(&mut x.response.body);
        let response =
            Response { status: x.response.status, reason: None, headers: x.response.headers.clone(), body: Body::Empty, tunnel: None };
        let exchange: &mut Exchange = &mut x;
        let filter = |chunk: &mut Bytes, last| {
            handler.filter(exchange, chunk, last);
            exchange.size.response_body += chunk.len() as u64;
        };
        let end = send(&mut respond, &response, head, body, filter).await;
        x.size.response = head_size(STATUS, &response.headers) + x.size.response_body;
        end
    };
    x.size.request = asked + received.get();
    worker.shared.give_request(handler.finish(x, end));
}

/// Digits of a status.
const STATUS: usize = 3;

/// Bytes of a head before it is compressed: its fields, and the values of those that have no name in HTTP/1.
fn head_size(first: usize, headers: &Headers) -> u64 {
    (first + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()) as u64
}

/// Sends an answer; `filter` sees each chunk of its body and whether it is the last.
async fn send(
    respond: &mut SendResponse<Bytes>,
    response: &Response,
    head: bool,
    mut body: Body,
    mut filter: impl FnMut(&mut Bytes, bool),
) -> End {
    let bodiless = head || matches!(response.status, 204 | 304) || matches!(body, Body::Empty);
    let Some(answer) = head_of(response) else {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return End::UpstreamGone;
    };
    if bodiless {
        filter(&mut Bytes::new(), true);
        return if respond.send_response(answer, true).is_ok() { End::Complete } else { End::ClientGone };
    }
    let Ok(mut stream) = respond.send_response(answer, false) else { return End::ClientGone };
    loop {
        let polled = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => body.poll_chunk(cx).map(Some),
        });
        match polled.await {
            None => return End::ClientGone,
            Some(Some(Ok(mut chunk))) => {
                filter(&mut chunk, false);
                if send_chunk(&mut stream, chunk).await.is_err() {
                    return End::ClientGone;
                }
            }
            Some(Some(Err(_))) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return End::UpstreamGone;
            }
            Some(None) => break,
        }
    }
    let mut rest = Bytes::new();
    filter(&mut rest, true);
    let trailers = match &mut body {
        Body::Stream(source) => source.trailers().map(|fields| fields_of(&fields)),
        Body::Empty | Body::Bytes(_) => None,
    };
    if !rest.is_empty() && send_chunk(&mut stream, rest).await.is_err() {
        return End::ClientGone;
    }
    let sent = match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    };
    if sent.is_ok() { End::Complete } else { End::ClientGone }
}

/// Sends a chunk as the client's window allows.
async fn send_chunk(stream: &mut SendStream<Bytes>, mut chunk: Bytes) -> Result<(), h2::Error> {
    while !chunk.is_empty() {
        stream.reserve_capacity(chunk.len());
        let room = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(Reason::CANCEL.into()),
        };
        stream.send_data(chunk.split_to(room.min(chunk.len())), false)?;
    }
    Ok(())
}

fn head_of(response: &Response) -> Option<http::Response<()>> {
    let mut answer = http::Response::new(());
    *answer.status_mut() = http::StatusCode::from_u16(response.status).ok()?;
    *answer.headers_mut() = fields_of(&response.headers);
    if response.status == 204 {
        // as nginx does on HTTP/2 alone: what speaks of a body has no meaning without one
        answer.headers_mut().remove(http::header::CONTENT_TYPE);
        answer.headers_mut().remove(http::header::LAST_MODIFIED);
    }
    Some(answer)
}

/// Fields as HTTP/2 has them: without those that speak of a connection, and without what is no field.
fn fields_of(headers: &Headers) -> http::HeaderMap {
    let mut fields = http::HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        let of_connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        if of_connection.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes())) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (http::HeaderName::from_bytes(name), http::HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    fields
}

/// Reads the head of a request, whose body counts its bytes in `received`; `Err` is the status to refuse it with.
fn read(request: http::Request<RecvStream>, ours: &mut Request, received: &Rc<Cell<u64>>) -> Result<(), u16> {
    let (parts, body) = request.into_parts();
    ours.version = Version::Http2;
    ours.method = Method::parse(parts.method.as_str());
    ours.headers.clear();
    ours.target.clear();
    if ours.method == Method::Connect {
        return Err(405);
    }
    let target = parts.uri.path_and_query().map_or("", |t| t.as_str());
    match target {
        "*" if ours.method == Method::Options => ours.target.push('*'),
        target if target.starts_with('/') && target.bytes().all(syntax::is_target) => ours.target.push_str(target),
        _ => return Err(400),
    }
    let authority = parts.uri.authority().map(|a| a.as_str());
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = hosts.next();
    let chosen = match (authority, host) {
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => return Err(400),
        (Some(authority), _) => authority.as_bytes(),
        (None, Some(host)) => host.as_bytes(),
        (None, None) => return Err(400),
    };
    if hosts.next().is_some() || !syntax::is_host(chosen) {
        return Err(400);
    }
    ours.headers.append("host", chosen);
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in &parts.headers {
        match name.as_str() {
            "host" => {}
            // a client may split its cookies over fields; upstreams expect one
            "cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value.as_bytes());
            }
            name => ours.headers.append(name, value.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        ours.headers.append("cookie", &cookies);
    }
    ours.body = if body.is_end_stream() { Body::Empty } else { Body::Stream(Box::new(StreamBody::new(body, &parts.headers, received))) };
    Ok(())
}

/// The body of a request. The client's window opens again as chunks are taken.
struct StreamBody {
    stream: RecvStream,
    /// What Content-Length says is still to come.
    left: Option<u64>,
    /// Bytes that were handed on and are not yet given back to the window.
    taken: usize,
    /// Bytes that have come, for the log.
    received: Rc<Cell<u64>>,
    finished: bool,
}

impl StreamBody {
    fn new(stream: RecvStream, fields: &http::HeaderMap, received: &Rc<Cell<u64>>) -> Self {
        let left = fields.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        Self { stream, left, taken: 0, received: Rc::clone(received), finished: false }
    }
}

impl BodySource for StreamBody {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.taken > 0 {
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.taken));
        }
        loop {
            if self.finished {
                return Poll::Ready(None);
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => {
                    self.taken = chunk.len();
                    self.received.set(self.received.get() + chunk.len() as u64);
                    self.left = self.left.map(|left| left.saturating_sub(chunk.len() as u64));
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Some(Err(error)) => {
                    self.finished = true;
                    let malformed = error.reason() == Some(Reason::PROTOCOL_ERROR);
                    return Poll::Ready(Some(Err(if malformed {
                        BodyError::Malformed("framing of HTTP/2")
                    } else {
                        BodyError::Incomplete
                    })));
                }
                None => self.finished = true,
            }
        }
    }

    fn length(&self) -> Option<u64> {
        if self.finished { Some(0) } else { self.left }
    }
}
