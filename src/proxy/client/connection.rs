//! One connection to an upstream: send a request, read the head of its answer.

use std::future::{Future, poll_fn};
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::http::{Body, Response};
use crate::proxy::client::head::{self, Framing, Parsed};
use crate::proxy::client::{Ask, Failure};
use crate::proxy::deadline::Deadline;
use crate::proxy::stream::Stream;
use crate::snapshot::Timeouts;

/// Bytes read at once.
const READ: usize = 16 * 1024;

/// A connection and its buffers, which live as long as it does.
pub struct Connection {
    stream: Stream,
    /// Read and not yet consumed.
    pub(super) input: BytesMut,
    upload: Upload,
    deadline: Option<Deadline>,
    served: u64,
}

/// What is still to be sent of a request.
#[derive(Default)]
struct Upload {
    out: Vec<u8>,
    sent: usize,
    body: Body,
    chunked: bool,
    /// All of the request is in `out`.
    complete: bool,
    /// The upstream takes no more; its answer may still be read.
    broken: bool,
}

/// What follows the head of an answer.
pub(super) struct Answer {
    pub framing: Framing,
    pub keep_alive: bool,
}

impl Connection {
    pub fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), upload: Upload::default(), deadline: None, served: 0 }
    }

    /// Requests sent over this connection.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// The buffer into which the head of the next request is written.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.upload.out.clear();
        &mut self.upload.out
    }

    /// Whether an idle connection may be used: nothing has come, not even its end.
    pub fn is_open(&self) -> bool {
        if let Stream::Tls(_) = &self.stream {
            // session tickets may have come; an end shows when the next request is sent
            return self.input.is_empty();
        }
        let mut byte = [0];
        self.input.is_empty() && matches!(self.stream.tcp().try_read(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Whether the upstream has closed the connection, as the system knows it at this moment and not as the last look at all
    /// connections found it.
    pub fn is_closed_now(&self) -> bool {
        let mut byte = [0];
        match recv(self.stream.tcp().as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => false,
            // over TLS something may have come that is no part of an answer
            Ok(1..) => matches!(self.stream, Stream::Tcp(_)),
            Ok(0) | Err(_) => true,
        }
    }

    pub(super) fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.input)
    }

    /// Sends the request and reads the head of the final answer.
    pub(super) async fn exchange(&mut self, body: Body, chunked: bool, ask: &Ask, response: &mut Response) -> Result<Answer, Failure> {
        self.served += 1;
        self.upload.start(body, chunked);
        self.limit(ask.timeouts.read);
        poll_fn(|cx| self.poll_exchange(cx, ask, response)).await
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>, ask: &Ask, response: &mut Response) -> Poll<Result<Answer, Failure>> {
        if let Err(failure) = self.poll_upload(cx, &ask.timeouts) {
            return Poll::Ready(Err(failure));
        }
        loop {
            if !self.input.is_empty() {
                match head::parse(&self.input, ask.head, response) {
                    Err(what) => return Poll::Ready(Err(Failure::Malformed(what))),
                    Ok(Some(Parsed { len, framing, keep_alive })) => {
                        self.input.advance(len);
                        if matches!(response.status, 100 | 102..=199) || response.status == 101 && !ask.upgrade {
                            if response.status == 101 {
                                return Poll::Ready(Err(Failure::Malformed("switched protocols unasked")));
                            }
                            continue;
                        }
                        return Poll::Ready(Ok(Answer { framing, keep_alive }));
                    }
                    Ok(None) => {}
                }
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        if self.poll_passed(cx, ask.timeouts.read) { Poll::Ready(Err(Failure::Timeout)) } else { Poll::Pending }
    }

    /// Reads more into `input`; 0 is the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.input.reserve(READ / 4);
        if self.input.capacity() < READ {
            self.input.reserve(READ);
        }
        pin!(self.stream.read_buf(&mut self.input)).poll(cx)
    }

    /// Sends as much of the request as can be sent now.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>, timeouts: &Timeouts) -> Result<(), Failure> {
        let upload = &mut self.upload;
        while !upload.broken {
            if upload.sent < upload.out.len() {
                match Pin::new(&mut self.stream).poll_write(cx, &upload.out[upload.sent..]) {
                    Poll::Ready(Ok(n)) if n > 0 => {
                        upload.sent += n;
                        if !upload.complete
                            && let Some(deadline) = &mut self.deadline
                        {
                            deadline.set(timeouts.write);
                        }
                    }
                    Poll::Ready(_) => upload.broken = true,
                    Poll::Pending => return Ok(()),
                }
                continue;
            }
            if upload.complete {
                if let Stream::Tls(_) = &self.stream
                    && Pin::new(&mut self.stream).poll_flush(cx).is_pending()
                {
                    return Ok(());
                }
                break;
            }
            match upload.body.poll_chunk(cx) {
                Poll::Ready(Some(Ok(chunk))) => upload.push(&chunk),
                Poll::Ready(None) => {
                    upload.finish();
                    if let Some(deadline) = &mut self.deadline {
                        deadline.set(timeouts.read);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Err(Failure::RequestBody(error)),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether the whole request was sent.
    pub(super) fn uploaded(&self) -> bool {
        self.upload.complete && self.upload.sent == self.upload.out.len() && !self.upload.broken
    }

    pub(super) fn limit(&mut self, limit: std::time::Duration) {
        match &mut self.deadline {
            Some(deadline) => deadline.set(limit),
            None => self.deadline = Some(Deadline::new(limit)),
        }
    }

    /// Whether the upstream has been silent for too long. While the client's own body is awaited, it is not the upstream's turn.
    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>, limit: std::time::Duration) -> bool {
        let Some(deadline) = &mut self.deadline else { return false };
        while deadline.poll_passed(cx) {
            if self.upload.complete || self.upload.sent < self.upload.out.len() {
                return true;
            }
            deadline.set(limit);
        }
        false
    }
}

impl Upload {
    /// Begins with the head in `out`; a body at hand goes with it in one write.
    fn start(&mut self, body: Body, chunked: bool) {
        self.sent = 0;
        self.broken = false;
        self.complete = false;
        self.chunked = chunked;
        match body {
            Body::Empty => self.complete = true,
            Body::Bytes(bytes) if !chunked => {
                self.out.extend_from_slice(&bytes);
                self.complete = true;
            }
            body => self.body = body,
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.out.clear();
        self.sent = 0;
        if self.chunked {
            self.out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        }
        self.out.extend_from_slice(chunk);
        if self.chunked {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn finish(&mut self) {
        self.out.clear();
        self.sent = 0;
        if self.chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        self.body = Body::Empty;
        self.complete = true;
    }
}
