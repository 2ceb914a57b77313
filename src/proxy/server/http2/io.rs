//! A connection's bytes as the h2 crate sees them: what was read ahead, the time limit for writes, and a count of what passes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::server::http2::ledger::Ledger;
use crate::proxy::server::worker::{Direction, Watched};
use crate::proxy::stream::{Rewound, Stream};

/// Most bytes that are read and thrown away before a connection is closed.
const LINGERING: usize = 1024 * 1024;
/// Of these at once.
const CHUNK: usize = 2048;

/// A connection, shared by the h2 crate, which reads and writes, and the server, which closes it when h2 has let go of it.
#[derive(Clone)]
pub struct Io {
    stream: Rc<RefCell<Rewound>>,
    watched: Rc<Watched>,
    ledger: Rc<Ledger>,
}

impl Io {
    pub fn new(stream: Stream, read_ahead: Bytes, watched: Rc<Watched>, ledger: Rc<Ledger>) -> Self {
        Self { stream: Rc::new(RefCell::new(Rewound::new(stream, read_ahead))), watched, ledger }
    }

    /// Ends the connection so that what was sent reaches a client that is still sending: what it sends is read for a while, as
    /// the system would otherwise reset the connection.
    pub async fn close(self) {
        let limit = self.watched.shared().limits.lingering_timeout;
        let mut left = LINGERING;
        self.watched.moved(Direction::Read);
        poll_fn(|cx| {
            let stream = &mut *self.stream.borrow_mut();
            // where the end cannot be written, it is the client that does not read
            let _ = Pin::new(&mut *stream).poll_shutdown(cx);
            let mut buffer = [0; CHUNK];
            loop {
                let mut buffer = ReadBuf::new(&mut buffer);
                match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() && buffer.filled().len() <= left => left -= buffer.filled().len(),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if self.watched.is_over(Direction::Read, limit) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    /// Counts what was written; not being able to write for too long is an error.
    fn written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Ready(written) => {
                self.watched.moved(Direction::Write);
                self.ledger.passed(*written.as_ref().unwrap_or(&0));
            }
            Poll::Pending if self.watched.is_over(Direction::Write, self.watched.shared().limits.send_timeout) => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf);
        self.ledger.passed(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, buf);
        self.written(polled)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_write_vectored(cx, bufs);
        self.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx);
        self.written(polled.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx);
        self.written(polled.map_ok(|()| 0)).map_ok(|_| ())
    }
}
