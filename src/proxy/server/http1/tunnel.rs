//! Bytes both ways once protocols were switched (RFC 9110, section 7.8).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::Tunnel;
use crate::proxy::handler::End;
use crate::proxy::server::http1::io::Io;
use crate::proxy::server::worker::Direction;

/// Passes bytes both ways until both sides have ended, one breaks off, or neither has sent anything for as long as `idle`.
pub async fn run(io: &Rc<RefCell<Io>>, mut tunnel: Box<dyn Tunnel>, idle: Duration) -> End {
    if poll_fn(|cx| io.borrow_mut().poll_send(cx)).await.is_err() {
        return End::ClientGone;
    }
    let mut client = Client(io);
    let mut copy = pin!(tokio::io::copy_bidirectional(&mut client, &mut tunnel));
    poll_fn(|cx| {
        if let Poll::Ready(result) = copy.as_mut().poll(cx) {
            return Poll::Ready(if result.is_ok() { End::Complete } else { End::ClientGone });
        }
        if io.borrow().watched.is_over(Direction::Read, idle) { Poll::Ready(End::Complete) } else { Poll::Pending }
    })
    .await
}

/// The client's side, with what was read ahead. Each byte either way shows that the tunnel is in use.
struct Client<'a>(&'a Rc<RefCell<Io>>);

impl AsyncRead for Client<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self.0.borrow_mut();
        let before = buf.filled().len();
        let result = if io.input.is_empty() {
            Pin::new(&mut io.stream).poll_read(cx, buf)
        } else {
            let n = io.input.len().min(buf.remaining());
            buf.put_slice(&io.input[..n]);
            io.input.advance(n);
            Poll::Ready(Ok(()))
        };
        let n = buf.filled().len() - before;
        if n > 0 {
            io.received += n as u64;
            io.watched.moved(Direction::Read);
        }
        result
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let io = &mut *self.0.borrow_mut();
        let result = Pin::new(&mut io.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = result {
            io.sent += n as u64;
            io.watched.moved(Direction::Read);
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_shutdown(cx)
    }
}
