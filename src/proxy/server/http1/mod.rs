//! HTTP/1.1 and 1.0: one task a connection, one request after the other.
//!
//! | module | what it holds |
//! |---|---|
//! | [`head`] | the head of a request, read strictly |
//! | [`chunked`] | the chunked transfer coding of a request |
//! | [`io`] | the connection's bytes, shared by the server and the body of a request |
//! | [`answer`] | the head of an answer |
//! | [`output`] | what is to be written |
//! | [`tunnel`] | bytes both ways once protocols were switched |

pub mod answer;
pub mod chunked;
pub mod head;
pub mod io;
pub mod output;
pub mod tunnel;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::http::{Body, Method, Request, Version};
use crate::plugin::Exchange;
use crate::plugin::exchange::{Delivery as Delivered, Source};
use crate::proxy::handler::{Connection, End, Handler};
use crate::proxy::server::counters::Phase;
use crate::proxy::server::worker::{Direction, READ, Shared, Watched};
use crate::proxy::server::{Worker, http2};
use crate::proxy::stream::Stream;
use answer::{Circumstances, Delivery, Framing};
use head::{Head, Refusal, Scan};
use io::{Io, RequestBody};

/// Bytes of an answer that wait for a slow client; its source is not asked for more until they are fewer.
const HIGH_WATER: usize = 64 * 1024;
/// Empty lines that may stand before a request line (RFC 9112, section 2.2).
const EMPTY_LINES: u8 = 4;
/// Most bytes that are read and thrown away before a connection is closed.
const LINGERING: usize = 4 * 1024 * 1024;

/// What comes of reading a head.
enum Next {
    Request(Head, Box<Exchange>),
    Refused(Refusal),
    /// The client is gone, or has been idle for too long.
    End,
    /// The connection speaks HTTP/2.
    Http2,
}

/// Serves a connection to its end. Gives it back, with what was read of it, when it speaks HTTP/2 and `http2` allows that.
pub async fn serve<H: Handler>(
    worker: &Worker<H>,
    stream: Stream,
    input: BytesMut,
    connection: Rc<Connection>,
    watched: Rc<Watched>,
    http2: bool,
) -> Option<(Stream, BytesMut)> {
    let io = Rc::new(RefCell::new(Io::new(stream, input, watched)));
    let mut server = Server { worker, io, connection, served: 0 };
    if server.run(http2).await {
        let io = Rc::into_inner(server.io).expect("no request was begun that could hold it").into_inner();
        return Some((io.stream, io.input));
    }
    None
}

/// Answers what is no request at all with this status, and closes the connection.
pub async fn refuse<H: Handler>(worker: &Worker<H>, stream: Stream, status: u16, connection: Rc<Connection>, watched: Rc<Watched>) {
    let io = Rc::new(RefCell::new(Io::new(stream, BytesMut::new(), watched)));
    let mut server = Server { worker, io, connection, served: 0 };
    server.refuse(status).await;
    server.close().await;
}

struct Server<'a, H> {
    worker: &'a Worker<H>,
    io: Rc<RefCell<Io>>,
    connection: Rc<Connection>,
    served: u64,
}

impl<H: Handler> Server<'_, H> {
    fn shared(&self) -> &Rc<Shared> {
        &self.worker.shared
    }

    /// True when the connection turned out to speak HTTP/2.
    async fn run(&mut self, with_http2: bool) -> bool {
        loop {
            self.io.borrow().watched.moved(Direction::Read);
            let mut reading = HeadReader { scan: Scan::default(), empty_lines: 0, http2: with_http2 && self.served == 0 };
            let handler = &*self.worker.handler;
            let goes_on = match poll_fn(|cx| reading.poll(cx, &mut self.io.borrow_mut(), handler)).await {
                Next::Request(head, exchange) => self.exchange(head, exchange).await,
                Next::Refused(_) if with_http2 && self.served == 0 && head::is_foreign(&self.io.borrow().input) => {
                    tracing::debug!(client = %self.connection.client.peer, "neither HTTP/1 nor HTTP/2");
                    self.io.borrow_mut().output.write(|out| out.extend_from_slice(http2::INVALID_PREFACE));
                    let _ = poll_fn(|cx| self.io.borrow_mut().poll_send(cx)).await;
                    false
                }
                Next::Refused(refusal) => {
                    tracing::debug!(status = refusal.status, why = refusal.why, client = %self.connection.client.peer, "request refused");
                    self.refuse(refusal.status).await;
                    false
                }
                Next::End => return false,
                Next::Http2 => return true,
            };
            if !goes_on {
                self.close().await;
                return false;
            }
        }
    }

    /// Serves one request; whether another may follow.
    async fn exchange(&mut self, head: Head, mut exchange: Box<Exchange>) -> bool {
        self.served += 1;
        let asked = Asked { version: exchange.request.version, head: exchange.request.method == Method::Head };
        self.take_body(&head, &mut exchange.request);
        self.worker.handler.begin(&mut exchange, &self.connection);
        let mut end = self.respond(&mut exchange).await;
        let mut keep_alive = false;
        if end == End::Complete {
            let delivery = self.begin_answer(&head, &asked, &mut exchange);
            keep_alive = delivery.keep_alive;
            end = match (exchange.response.tunnel.take(), delivery.framing) {
                (Some(tunnel), Framing::None) if exchange.response.status == 101 => {
                    keep_alive = false;
                    let idle = exchange.service.as_ref().and_then(|s| s.read_timeout).unwrap_or(60_000);
                    tunnel::run(&self.io, tunnel, Duration::from_millis(idle)).await
                }
                (_, framing) => self.deliver(&mut exchange, framing).await,
            };
        }
        {
            let io = self.io.borrow();
            exchange.size.request = io.received;
            exchange.size.response = io.sent;
        }
        self.worker.handler.finish(exchange, end);
        end == End::Complete && keep_alive && self.discard_body().await
    }

    /// Gives the request its body: at hand when all of it has come already, streaming otherwise.
    fn take_body(&mut self, head: &Head, request: &mut Request) {
        let mut io = self.io.borrow_mut();
        io.begin(head.framing, head.expects_continue, head.len);
        request.body = match io.whole_body() {
            Some(bytes) => Body::Bytes(bytes),
            None if io.is_read() => Body::Empty,
            None => {
                drop(io);
                Body::Stream(Box::new(RequestBody::new(&self.io)))
            }
        };
    }

    async fn respond(&self, exchange: &mut Exchange) -> End {
        let mut respond = pin!(self.worker.handler.respond(exchange));
        poll_fn(|cx| {
            if respond.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Complete);
            }
            if self.io.borrow_mut().poll_gone(cx) { Poll::Ready(End::ClientGone) } else { Poll::Pending }
        })
        .await
    }

    /// Queues the head of the answer.
    fn begin_answer(&self, head: &Head, asked: &Asked, exchange: &mut Exchange) -> Delivery {
        let shared = self.shared();
        let mut io = self.io.borrow_mut();
        io.answer();
        let keep_alive = head.keep_alive
            && self.served < shared.limits.keepalive_requests
            && !self.worker.handler.draining()
            && !shared.draining()
            && io.is_reusable();
        let without_body = asked.head || matches!(exchange.response.status, 100..=199 | 204 | 304);
        if without_body {
            // body filters and the log see that there is none; the body stays for its length
            self.worker.handler.filter(exchange, &mut Bytes::new(), true);
        } else if let Body::Empty | Body::Bytes(_) = exchange.response.body {
            let mut chunk = match std::mem::take(&mut exchange.response.body) {
                Body::Bytes(bytes) => bytes,
                _ => Bytes::new(),
            };
            self.worker.handler.filter(exchange, &mut chunk, true);
            exchange.response.body = chunk.into();
        }
        let date = (exchange.source == Source::Gateway).then_some(&shared.date);
        let circumstances = Circumstances { version: asked.version, head: asked.head, keep_alive, date };
        let delivery = io.output.write(|out| answer::write(out, &exchange.response, &circumstances));
        let length = match delivery.framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::UntilClose => None,
        };
        let chunked = delivery.framing == Framing::Chunked;
        exchange.delivery = Some(Delivered { length, chunked, keep_alive: delivery.keep_alive });
        delivery
    }

    /// Writes the body of the answer, and the head that is queued with its first bytes.
    async fn deliver(&self, exchange: &mut Exchange, framing: Framing) -> End {
        let mut body = std::mem::take(&mut exchange.response.body);
        let at_hand = !matches!(body, Body::Stream(_));
        let mut delivering = Delivering { framing, ended: at_hand || framing == Framing::None };
        if let Body::Bytes(bytes) = &mut body
            && framing != Framing::None
        {
            exchange.size.response_body += bytes.len() as u64;
            delivering.push(std::mem::take(bytes), &mut self.io.borrow_mut());
        }
        poll_fn(|cx| self.poll_deliver(cx, exchange, &mut body, &mut delivering)).await
    }

    fn poll_deliver(&self, cx: &mut Context<'_>, exchange: &mut Exchange, body: &mut Body, delivering: &mut Delivering) -> Poll<End> {
        loop {
            let (mut broken, mut waiting) = (false, false);
            while !delivering.ended && self.io.borrow().output.len() < HIGH_WATER {
                // the body is asked while nothing is borrowed: it may read the client's own body
                let (mut chunk, last) = match body.poll_chunk(cx) {
                    Poll::Ready(Some(Ok(chunk))) => (chunk, body.length() == Some(0)),
                    Poll::Ready(None) => (Bytes::new(), true),
                    Poll::Ready(Some(Err(error))) => {
                        tracing::debug!(%error, client = %self.connection.client.peer, "answer cut");
                        broken = true;
                        break;
                    }
                    Poll::Pending => {
                        waiting = true;
                        break;
                    }
                };
                self.worker.handler.filter(exchange, &mut chunk, last);
                exchange.size.response_body += chunk.len() as u64;
                let io = &mut self.io.borrow_mut();
                delivering.push(chunk, io);
                if last {
                    delivering.finish(io);
                }
            }
            let mut io = self.io.borrow_mut();
            match io.poll_send(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(End::ClientGone),
                Poll::Ready(Ok(())) if broken || delivering.fell_short() => return Poll::Ready(End::UpstreamGone),
                Poll::Ready(Ok(())) if delivering.ended => return Poll::Ready(End::Complete),
                Poll::Ready(Ok(())) if !waiting => {}
                Poll::Ready(Ok(())) if io.poll_gone(cx) => return Poll::Ready(End::ClientGone),
                Poll::Ready(Ok(())) => return Poll::Pending,
                Poll::Pending if broken => return Poll::Ready(End::UpstreamGone),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Reads what is left of the request's body, so that the next request can be read; whether that was possible.
    async fn discard_body(&self) -> bool {
        let mut left = self.shared().limits.discarded;
        if self.io.borrow().is_read() {
            return true;
        }
        poll_fn(|cx| {
            loop {
                match self.io.borrow_mut().poll_body(cx) {
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Ready(Some(Ok(chunk))) if (chunk.len() as u64) <= left => left -= chunk.len() as u64,
                    Poll::Ready(Some(_)) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Answers what is no request.
    async fn refuse(&mut self, status: u16) {
        self.shared().tally.request();
        self.io.borrow().watched.enter(Phase::Writing);
        let mut response = self.worker.handler.refuse(status, None, &self.connection);
        let body = match std::mem::take(&mut response.body) {
            Body::Bytes(bytes) => bytes,
            _ => Bytes::new(),
        };
        response.body = body.clone().into();
        let circumstances = Circumstances { version: Version::Http11, head: false, keep_alive: false, date: Some(&self.shared().date) };
        {
            let mut io = self.io.borrow_mut();
            io.output.write(|out| answer::write(out, &response, &circumstances));
            io.output.push(body);
        }
        let _ = poll_fn(|cx| self.io.borrow_mut().poll_send(cx)).await;
    }

    /// Closes the connection so that the answer reaches a client that is still sending: what it sends is read for a while,
    /// as the system would otherwise reset the connection.
    async fn close(&self) {
        let limits = &self.shared().limits;
        let mut left = LINGERING;
        poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            match Pin::new(&mut io.stream).poll_shutdown(cx) {
                Poll::Pending if !io.watched.is_over(Direction::Write, limits.lingering_timeout) => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
        let (is_read, is_empty) = {
            let io = self.io.borrow();
            io.watched.moved(Direction::Read);
            (io.is_read(), io.input.is_empty())
        };
        poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            loop {
                io.input.clear();
                match io.poll_fill(cx) {
                    Poll::Ready(Ok(n)) if n > 0 && n <= left => left -= n,
                    Poll::Ready(_) => return Poll::Ready(()),
                    // nothing has come and nothing is to come
                    Poll::Pending if is_read && is_empty && left == LINGERING => return Poll::Ready(()),
                    Poll::Pending if io.watched.is_over(Direction::Read, limits.lingering_timeout) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}

/// What of a request its answer depends on; the engine may change the request.
struct Asked {
    version: Version,
    head: bool,
}

/// An answer's body on its way.
struct Delivering {
    framing: Framing,
    /// The whole body is queued.
    ended: bool,
}

impl Delivering {
    fn push(&mut self, mut chunk: Bytes, io: &mut Io) {
        if chunk.is_empty() {
            return;
        }
        match &mut self.framing {
            Framing::None => {}
            Framing::Length(left) => {
                // more than was announced would be taken for the next answer
                chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= chunk.len() as u64;
                io.output.push(chunk);
            }
            Framing::Chunked => {
                io.output.write(|out| answer::chunk_size(out, chunk.len()));
                io.output.push(chunk);
                io.output.write(|out| out.extend_from_slice(b"\r\n"));
            }
            Framing::UntilClose => io.output.push(chunk),
        }
    }

    fn finish(&mut self, io: &mut Io) {
        self.ended = true;
        if let Framing::Chunked = self.framing {
            io.output.write(|out| out.extend_from_slice(b"0\r\n\r\n"));
        }
    }

    /// Whether the body has ended before its announced length.
    fn fell_short(&self) -> bool {
        self.ended && matches!(self.framing, Framing::Length(left) if left > 0)
    }
}

/// Reads the head of the next request.
struct HeadReader {
    scan: Scan,
    empty_lines: u8,
    /// Whether the connection may turn out to speak HTTP/2.
    http2: bool,
}

impl HeadReader {
    fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io, handler: &impl Handler) -> Poll<Next> {
        loop {
            match self.look(io, handler) {
                Ok(None) => {}
                Ok(Some(next)) => return Poll::Ready(next),
                Err(refusal) => return Poll::Ready(Next::Refused(refusal)),
            }
            match io.poll_fill(cx) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(_)) => {
                    if io.watched.phase() == Phase::Waiting {
                        // from here on the head as a whole is limited in time
                        io.watched.moved(Direction::Read);
                        io.watched.enter(Phase::Reading);
                    }
                }
                Poll::Pending => return self.wait(io),
            }
        }
    }

    /// What the bytes read so far are; `None` when they are not enough.
    fn look(&mut self, io: &mut Io, handler: &impl Handler) -> Result<Option<Next>, Refusal> {
        while let [b'\r' | b'\n', ..] = io.input.as_ref() {
            match io.input.as_ref() {
                [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] if self.empty_lines < EMPTY_LINES => io.input.advance(2),
                _ => return Err(Refusal { status: 400, why: "malformed request line" }),
            }
            self.empty_lines += 1;
        }
        if io.input.is_empty() {
            return Ok(None);
        }
        if self.http2 {
            let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..];
            let n = preface.len().min(io.input.len());
            if io.input[..n] == preface[..n] {
                return Ok((n == preface.len()).then_some(Next::Http2));
            }
            self.http2 = false;
        }
        let limits = &io.watched.shared().limits;
        // most heads come whole and alone
        let whole = self.scan.is_new() && io.input.len() <= READ && io.input.ends_with(b"\r\n\r\n");
        if !whole && !self.scan.is_complete(&io.input, limits)? {
            return Ok(None);
        }
        let mut exchange = handler.blank();
        let head = head::parse(&io.input, limits, &mut exchange.request)?;
        io.input.advance(head.len);
        io.watched.moved(Direction::Read);
        io.watched.enter(Phase::Writing);
        io.watched.shared().tally.request();
        Ok(Some(Next::Request(head, exchange)))
    }

    fn wait(&self, io: &mut Io) -> Poll<Next> {
        let limits = &io.watched.shared().limits;
        let idle = io.input.is_empty();
        if idle && io.watched.phase() == Phase::Writing {
            io.watched.enter(Phase::Waiting);
            if io.watched.shared().draining() {
                io.watched.is_over(Direction::Read, limits.drain_grace);
            }
        } else if !idle {
            io.watched.enter(Phase::Reading);
        }
        let limit = if io.watched.phase() == Phase::Waiting { limits.keepalive_timeout } else { limits.header_timeout };
        match io.watched.is_over(Direction::Read, limit) {
            false => Poll::Pending,
            true if idle => Poll::Ready(Next::End),
            true => Poll::Ready(Next::Refused(Refusal { status: 408, why: "head took too long" })),
        }
    }
}
