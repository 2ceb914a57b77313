//! One connection's bytes, shared by the server, which writes, and the body of a request, which is read meanwhile.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use crate::http::{BodyError, BodySource, Headers};
use crate::proxy::server::http1::chunked::Decoder;
use crate::proxy::server::http1::head::Framing;
use crate::proxy::server::http1::output::Output;
use crate::proxy::server::worker::{Direction, READ, Watched};
use crate::proxy::stream::Stream;

/// The stream and its buffers. Borrowed within polls only, never across one.
pub struct Io {
    pub stream: Stream,
    /// Read and not consumed.
    pub input: BytesMut,
    pub output: Output,
    pub watched: Rc<Watched>,
    reading: Reading,
    trailers: Option<Headers>,
    /// The client waits for 100 before it sends the body.
    expects_continue: bool,
    /// The answer has begun: it is too late for 100.
    answering: bool,
    /// Counts requests, so that the body of an earlier one cannot be taken for that of the present one.
    request: u64,
    /// Bytes read and written for the present request.
    pub received: u64,
    pub sent: u64,
}

/// What is left of the body of the present request.
#[derive(Debug)]
enum Reading {
    Done,
    Length(u64),
    Chunked(Decoder),
    /// Where the next message begins is not known.
    Broken,
}

impl Io {
    pub fn new(stream: Stream, input: BytesMut, watched: Rc<Watched>) -> Self {
        Self {
            stream,
            input,
            output: Output::default(),
            watched,
            reading: Reading::Done,
            trailers: None,
            expects_continue: false,
            answering: false,
            request: 0,
            received: 0,
            sent: 0,
        }
    }

    /// Reads more into `input`; 0 is the end. While nothing comes, an empty buffer is lent to others.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.input.is_empty() {
            let readable = self.stream.poll_readable(cx);
            if !matches!(readable, Poll::Ready(Ok(()))) {
                self.give_buffer();
            }
            ready!(readable)?;
        }
        if self.input.capacity() == 0 {
            self.input = self.watched.shared().buffer();
        } else if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        let result = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        if self.input.is_empty() {
            self.give_buffer();
        }
        result
    }

    fn give_buffer(&mut self) {
        if self.input.capacity() > 0 {
            let input = std::mem::take(&mut self.input);
            self.watched.shared().give_buffer(input);
        }
    }

    /// Writes what is queued; time-outs are errors.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.output.is_empty() && !matches!(self.stream, Stream::Tls(_)) {
            return Poll::Ready(Ok(()));
        }
        let (written, result) = self.output.poll_write(&mut self.stream, cx);
        self.sent += written as u64;
        if written > 0 || result.is_ready() {
            self.watched.moved(Direction::Write);
        }
        if result.is_pending() && self.watched.is_over(Direction::Write, self.watched.shared().limits.send_timeout) {
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        result
    }

    /// The head of a request was consumed: its body comes next.
    pub fn begin(&mut self, framing: Framing, expects_continue: bool, head: usize) {
        self.reading = match framing {
            Framing::None => Reading::Done,
            Framing::Length(n) => Reading::Length(n),
            Framing::Chunked => Reading::Chunked(Decoder::default()),
        };
        self.expects_continue = expects_continue;
        self.answering = false;
        self.trailers = None;
        self.request += 1;
        self.received = head as u64;
        self.sent = 0;
    }

    /// The whole body, when all of it has come already and nobody waits for 100.
    pub fn whole_body(&mut self) -> Option<Bytes> {
        match self.reading {
            Reading::Length(n) if !self.expects_continue && n <= self.input.len() as u64 => {
                self.reading = Reading::Done;
                self.received += n;
                Some(self.input.split_to(n as usize).freeze())
            }
            _ => None,
        }
    }

    /// The answer begins: a body that was not asked for by now never will be.
    pub fn answer(&mut self) {
        self.answering = true;
        if std::mem::take(&mut self.expects_continue) {
            self.reading = Reading::Broken;
        }
    }

    /// The whole request was read.
    pub fn is_read(&self) -> bool {
        matches!(self.reading, Reading::Done)
    }

    /// Whether the connection can be used again once what is left of the body was read; known to be too much counts as not.
    pub fn is_reusable(&self) -> bool {
        match self.reading {
            Reading::Done | Reading::Chunked(_) => true,
            Reading::Length(left) => left <= self.watched.shared().limits.discarded,
            Reading::Broken => false,
        }
    }

    /// The next piece of the body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if std::mem::take(&mut self.expects_continue) {
            self.output.write(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        if !self.answering && !self.output.is_empty() && matches!(self.poll_send(cx), Poll::Ready(Err(_))) {
            return self.broken(BodyError::Incomplete);
        }
        loop {
            let before = self.input.len();
            let piece = match &mut self.reading {
                Reading::Done => return Poll::Ready(None),
                Reading::Broken => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                Reading::Length(_) if self.input.is_empty() => None,
                Reading::Length(left) => {
                    let take = (*left).min(self.input.len() as u64);
                    *left -= take;
                    if *left == 0 {
                        self.reading = Reading::Done;
                    }
                    Some(self.input.split_to(take as usize).freeze())
                }
                Reading::Chunked(decoder) => match decoder.decode(&mut self.input) {
                    Ok(Some(piece)) => Some(piece),
                    Ok(None) if decoder.is_finished() => {
                        self.trailers = decoder.take_trailers();
                        self.reading = Reading::Done;
                        self.received += (before - self.input.len()) as u64;
                        return Poll::Ready(None);
                    }
                    Ok(None) => None,
                    Err(what) => return self.broken(BodyError::Malformed(what)),
                },
            };
            self.received += (before - self.input.len()) as u64;
            if let Some(piece) = piece {
                return Poll::Ready(Some(Ok(piece)));
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return self.broken(BodyError::Incomplete),
                Poll::Ready(Ok(_)) => self.watched.moved(Direction::Read),
                Poll::Ready(Err(error)) => return self.broken(error.into()),
                Poll::Pending if self.watched.is_over(Direction::Read, self.watched.shared().limits.body_timeout) => {
                    return self.broken(BodyError::Timeout);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn broken(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.reading = Reading::Broken;
        self.watched.moved(Direction::Read);
        Poll::Ready(Some(Err(error)))
    }

    /// Whether the client has gone while its request is served. Reads ahead, up to a bound; a body is left to its reader.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        while self.is_read() && self.input.len() < READ {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return false,
            }
        }
        false
    }

    fn length(&self) -> Option<u64> {
        match self.reading {
            Reading::Done => Some(0),
            Reading::Length(left) => Some(left),
            Reading::Chunked(_) | Reading::Broken => None,
        }
    }
}

/// The body of a request while it arrives.
pub struct RequestBody {
    io: Rc<RefCell<Io>>,
    request: u64,
}

impl RequestBody {
    /// The body of the present request.
    pub fn new(io: &Rc<RefCell<Io>>) -> Self {
        Self { io: Rc::clone(io), request: io.borrow().request }
    }
}

impl BodySource for RequestBody {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut io = self.io.borrow_mut();
        if io.request != self.request {
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        io.poll_body(cx)
    }

    fn length(&self) -> Option<u64> {
        self.io.borrow().length()
    }

    fn trailers(&mut self) -> Option<Headers> {
        let mut io = self.io.borrow_mut();
        if io.request == self.request { io.trailers.take() } else { None }
    }
}
