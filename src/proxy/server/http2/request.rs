//! A request of a stream: its head, read as strictly as that of HTTP/1, and its body while it arrives.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream};

use crate::http::{Body, BodyError, BodySource, Headers, Method, Request, Version, syntax};
use crate::proxy::deadline::Deadline;
use crate::proxy::server::Limits;
use crate::proxy::server::http1::head::{HEAD_TOO_LARGE, is_method, origin_form};
use crate::proxy::server::http2::ledger::Ledger;

/// Reads the head of a request; `Err` is the status to refuse it with. `received` counts the bytes of the body as they arrive.
///
/// The h2 crate has seen to it that names are in lower case, that there are no fields of a connection, that pseudo fields come
/// first, once and are those of a request, and that a Content-Length is one number and no other than the body's.
pub fn read(
    request: http::Request<RecvStream>,
    ours: &mut Request,
    limits: &Limits,
    ledger: &Rc<Ledger>,
    received: &Rc<Cell<u64>>,
) -> Result<(), u16> {
    let (parts, body) = request.into_parts();
    ours.version = Version::Http2;
    ours.method = Method::parse(parts.method.as_str());
    ours.headers.clear();
    ours.target.clear();
    if !is_method(parts.method.as_str().as_bytes()) {
        return Err(400);
    }
    if matches!(ours.method, Method::Connect | Method::Trace) {
        return Err(405);
    }
    let target = parts.uri.path_and_query().map_or("", |t| t.as_str());
    if target.len() > limits.line {
        return Err(414);
    }
    match target {
        "*" if ours.method == Method::Options => ours.target.push('*'),
        target if target.starts_with('/') => origin_form(target.as_bytes(), &mut ours.target).map_err(|refusal| refusal.status)?,
        _ => return Err(400),
    }
    if parts.headers.len() > limits.fields {
        return Err(HEAD_TOO_LARGE);
    }
    let host = host(parts.uri.authority().map(|a| a.as_str().as_bytes()), &parts.headers)?;
    ours.headers.append_checked(b"host", host);
    let mut size = target.len() + host.len();
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in &parts.headers {
        let value = syntax::trim(value.as_bytes());
        let field = name.as_str().len() + value.len();
        if field > limits.line {
            return Err(HEAD_TOO_LARGE);
        }
        size += field;
        match name.as_str() {
            "host" => {}
            // a client may split its cookies over fields; upstreams expect one
            "cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value);
            }
            name => ours.headers.append_checked(name.as_bytes(), value),
        }
    }
    if size > limits.head {
        return Err(HEAD_TOO_LARGE);
    }
    if !cookies.is_empty() {
        ours.headers.append_checked(b"cookie", &cookies);
    }
    ledger.useful(size);
    ours.body = match body.is_end_stream() {
        true => Body::Empty,
        false => Body::Stream(Box::new(StreamBody {
            left: parts.headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok()),
            stream: body,
            taken: 0,
            state: State::Open,
            trailers: None,
            limit: limits.body_timeout,
            deadline: None,
            waiting: false,
            ledger: Rc::clone(ledger),
            received: Rc::clone(received),
        })),
    };
    Ok(())
}

/// `:authority`, or Host where there is none; where there are both, they are the same.
fn host<'a>(authority: Option<&'a [u8]>, fields: &'a http::HeaderMap) -> Result<&'a [u8], u16> {
    let mut hosts = fields.get_all(http::header::HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    let chosen = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => return Err(400),
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) => return Err(400),
    };
    if hosts.next().is_some() || !syntax::is_host(chosen) { Err(400) } else { Ok(chosen) }
}

/// The body of a request. The client's window opens again as chunks are taken.
struct StreamBody {
    stream: RecvStream,
    /// What Content-Length says is still to come.
    left: Option<u64>,
    /// Bytes that were handed on and are not yet given back to the window.
    taken: usize,
    state: State,
    trailers: Option<Headers>,
    /// Longest wait for a piece.
    limit: Duration,
    deadline: Option<Deadline>,
    /// A piece is awaited, and the deadline is that of this wait.
    waiting: bool,
    ledger: Rc<Ledger>,
    received: Rc<Cell<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// All data has come; trailers may.
    Data,
    Done,
    /// Broken off; it is never taken for complete.
    Broken,
}

impl StreamBody {
    fn broken(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.state = State::Broken;
        Poll::Ready(Some(Err(error)))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match self.state {
                State::Done => return Poll::Ready(None),
                State::Broken => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                State::Data => match ready!(self.stream.poll_trailers(cx)) {
                    Ok(trailers) => {
                        self.trailers = trailers.map(|fields| headers_of(&fields));
                        self.state = State::Done;
                    }
                    Err(error) => return self.broken(reason(&error)),
                },
                State::Open => match ready!(self.stream.poll_data(cx)) {
                    Some(Ok(chunk)) if chunk.is_empty() => {}
                    Some(Ok(chunk)) => {
                        self.taken = chunk.len();
                        self.left = self.left.map(|left| left.saturating_sub(chunk.len() as u64));
                        self.received.set(self.received.get() + chunk.len() as u64);
                        self.ledger.useful(chunk.len());
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                    Some(Err(error)) => return self.broken(reason(&error)),
                    None => self.state = State::Data,
                },
            }
        }
    }

    /// Whether the client has let itself be waited for too long.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = match &mut self.deadline {
            Some(deadline) => {
                if !self.waiting {
                    deadline.set(self.limit);
                }
                deadline
            }
            none => none.insert(Deadline::new(self.limit)),
        };
        self.waiting = true;
        deadline.poll_passed(cx)
    }
}

impl BodySource for StreamBody {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.taken > 0 {
            // fails only where the stream is gone, and with it its window
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.taken));
        }
        let polled = self.poll_piece(cx);
        if polled.is_pending() {
            return if self.is_late(cx) { self.broken(BodyError::Timeout) } else { Poll::Pending };
        }
        self.waiting = false;
        polled
    }

    fn length(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Open | State::Data => self.left,
            State::Broken => None,
        }
    }

    fn trailers(&mut self) -> Option<Headers> {
        self.trailers.take()
    }
}

fn reason(error: &h2::Error) -> BodyError {
    match error.reason() {
        Some(Reason::PROTOCOL_ERROR) => BodyError::Malformed("framing of HTTP/2"),
        _ => BodyError::Incomplete,
    }
}

fn headers_of(fields: &http::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.append_checked(name.as_str().as_bytes(), value.as_bytes());
    }
    headers
}
