//! HTTP/2 (RFC 9113) on the h2 crate: each stream is one exchange; windows are the back-pressure in both directions.
//!
//! | module | what it holds |
//! |---|---|
//! | [`request`] | head and body of a request |
//! | [`answer`] | the answer |
//! | [`io`] | the connection's bytes, limited in time and counted |
//! | [`ledger`] | what a connection's streams do, and what of it is abuse |
//!
//! What a client can make the server keep is bounded. The h2 crate bounds heads (what [`Limits`] allow in bytes and fields,
//! beyond which it answers 431 or ends the connection), CONTINUATION frames, small DATA frames, streams open at a time, streams
//! reset before they were looked at and streams refused for errors, and it reads nothing while an answer to a PING or SETTINGS
//! waits to be written. Time limits, requests per connection and the rest of abuse are seen to here.

pub mod answer;
pub mod io;
pub mod ledger;
pub mod request;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};

use crate::clock;
use crate::http::{Headers, Method};
use crate::plugin::Exchange;
use crate::proxy::handler::{Connection, End, Handler};
use crate::proxy::server::worker::{Direction, Watched};
use crate::proxy::server::{Limits, Worker};
use crate::proxy::stream::Stream;
use answer::{Sender, head_of};
use io::Io;
use ledger::{Ledger, Open};

/// Bytes that a client may send of one body, and of all, before they are taken.
const WINDOW: u32 = 256 * 1024;
/// What a field counts for beside its bytes (RFC 9113, section 6.5.2).
const FIELD: usize = 32;
/// Bytes of one answer that wait to be written.
const SEND_BUFFER: usize = 64 * 1024;
/// What a client is told that should speak HTTP/2 and does not (RFC 9113, section 3.4): an empty SETTINGS, and GOAWAY with
/// PROTOCOL_ERROR.
pub const INVALID_PREFACE: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";

/// How far a connection is from its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// The client was told to open no more streams; those that are open are served.
    Leaving,
    /// Nothing is served any more.
    Ending,
}

/// Serves a connection to its end.
pub async fn serve<H: Handler>(
    worker: &Rc<Worker<H>>,
    stream: Stream,
    read_ahead: BytesMut,
    connection: Rc<Connection>,
    watched: Rc<Watched>,
) {
    let limits = &worker.shared.limits;
    let ledger = Rc::new(Ledger::new(Rc::clone(&watched)));
    let io = Io::new(stream, read_ahead.freeze(), Rc::clone(&watched), Rc::clone(&ledger));
    let handshake = builder(limits).handshake::<_, Bytes>(io.clone());
    let Ok(Ok(mut http2)) = tokio::time::timeout(limits.header_timeout, handshake).await else { return };
    let client = &connection.client.peer;
    let mut stage = Stage::Serving;
    let mut drained = pin!(worker.shared.drained());
    loop {
        let accepted = poll_fn(|cx| {
            if stage != Stage::Ending
                && let Some(abuse) = ledger.abuse()
            {
                tracing::info!(%client, abuse, "an HTTP/2 connection is closed");
                stage = Stage::Ending;
                http2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            let idle = !ledger.is_open();
            if stage == Stage::Serving
                && (drained.as_mut().poll(cx).is_ready()
                    || ledger.is_worn_out()
                    || idle && watched.is_over(Direction::Read, ledger.patience()))
            {
                stage = Stage::Leaving;
                watched.moved(Direction::Read);
                http2.graceful_shutdown();
            }
            if stage == Stage::Leaving && idle && watched.is_over(Direction::Read, limits.drain_grace) {
                // the client should have said that it has read GOAWAY, after which h2 closes the connection
                stage = Stage::Ending;
                http2.abrupt_shutdown(Reason::NO_ERROR);
            }
            http2.poll_accept(cx)
        });
        match accepted.await {
            Some(Ok((request, respond))) => {
                let open = ledger.open();
                let exchange = exchange(Rc::clone(worker), request, respond, Rc::clone(&connection), open);
                tokio::task::spawn_local(async move {
                    let mut exchange = pin!(exchange);
                    poll_fn(|cx| clock::hold(|| exchange.as_mut().poll(cx))).await;
                });
            }
            Some(Err(error)) => {
                match error.reason() {
                    Some(Reason::ENHANCE_YOUR_CALM) => tracing::info!(%client, %error, "an HTTP/2 connection is closed"),
                    _ => tracing::debug!(%client, %error, "an HTTP/2 connection broke off"),
                }
                if error.is_io() {
                    return;
                }
                break;
            }
            None => break,
        }
    }
    drop(http2);
    io.close().await;
}

fn builder(limits: &Limits) -> Builder {
    let list = limits.head.saturating_add(limits.fields.saturating_mul(FIELD));
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX));
    builder
}

/// Serves one request.
async fn exchange<H: Handler>(
    worker: Rc<Worker<H>>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    connection: Rc<Connection>,
    open: Open,
) {
    let limits = &worker.shared.limits;
    let handler = &worker.handler;
    let ledger = Rc::clone(open.ledger());
    let received = Rc::new(Cell::new(0));
    let mut x = handler.blank();
    let read = request::read(request, &mut x.request, limits, &ledger, &received);
    let head = x.request.method == Method::Head;
    if let Err(status) = read {
        let mut response = handler.refuse(status, Some(&x.request), &connection);
        let body = std::mem::take(&mut response.body);
        let sender = Sender { respond: &mut respond, ledger: &ledger, limit: limits.send_timeout };
        sender.send(head_of(&response), head, body, |_, _| {}).await;
        return;
    }
    let asked = head_size(x.request.method.as_str().len() + x.request.target.len(), &x.request.headers);
    handler.begin(&mut x, &connection);
    let gone = {
        let mut answered = pin!(handler.respond(&mut x));
        poll_fn(|cx| {
            if answered.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            respond.poll_reset(cx).map(|_| true)
        })
        .await
    };
    let end = if gone {
        open.cancelled();
        End::ClientGone
    } else {
        let body = std::mem::take(&mut x.response.body);
        let answer = head_of(&x.response);
        x.size.response = head_size(STATUS, &x.response.headers);
        let exchange: &mut Exchange = &mut x;
        let sender = Sender { respond: &mut respond, ledger: &ledger, limit: limits.send_timeout };
        let filter = |chunk: &mut Bytes, last: bool| {
            handler.filter(exchange, chunk, last);
            exchange.size.response_body += chunk.len() as u64;
        };
        sender.send(answer, head, body, filter).await
    };
    x.size.request = asked + received.get();
    x.size.response += x.size.response_body;
    handler.finish(x, end);
}

/// Digits of a status.
const STATUS: usize = 3;

/// Bytes of a head before it is compressed: its fields, and the values of those that have no name in HTTP/1.
fn head_size(first: usize, headers: &Headers) -> u64 {
    (first + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()) as u64
}
