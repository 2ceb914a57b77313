//! Requests over HTTP/1.1: one at a time on each connection, which is opened anew when the server has closed it.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::response::{Chunks, Framing, head};
use crate::load::tls::Client;
use crate::load::{Run, Turn};

/// Bytes read at once: enough for a small answer in one read and a large one in few.
const BUFFER: usize = 128 * 1024;

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Bytes of the body.
    pub size: u64,
    /// The connection serves no further request.
    pub close: bool,
}

/// A connection with its buffer.
pub struct Connection<S> {
    stream: S,
    buffer: Box<[u8]>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: vec![0; BUFFER].into_boxed_slice() }
    }

    /// Sends a request and reads the whole answer; `keep` is shown the pieces of its body.
    pub async fn exchange(&mut self, request: &[u8], mut keep: impl FnMut(&[u8])) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let mut filled = 0;
        let head = loop {
            filled += self.fill(filled).await?;
            if let Some(head) = head(&self.buffer[..filled])? {
                break head;
            }
        };
        let mut size = 0;
        let mut body = |bytes: &[u8]| {
            size += bytes.len() as u64;
            keep(bytes);
        };
        let first = &self.buffer[head.len..filled];
        match head.framing {
            Framing::Length(mut left) => {
                let mut take = |bytes: &[u8]| {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    left -= n as u64;
                    body(&bytes[..n]);
                    left > 0
                };
                let mut more = take(first);
                while more {
                    let n = self.fill(0).await?;
                    more = take(&self.buffer[..n]);
                }
            }
            Framing::Chunked => {
                let mut chunks = Chunks::default();
                let mut tell = |part: crate::load::response::Part<'_>| {
                    if let crate::load::response::Part::Data(bytes) = part {
                        body(bytes);
                    }
                };
                chunks.feed(first, &mut tell)?;
                while !chunks.done() {
                    let n = self.fill(0).await?;
                    chunks.feed(&self.buffer[..n], &mut tell)?;
                }
            }
            Framing::Close => {
                body(first);
                loop {
                    let n = self.stream.read(&mut self.buffer).await?;
                    if n == 0 {
                        break;
                    }
                    body(&self.buffer[..n]);
                }
            }
        }
        Ok(Answer { status: head.status, size, close: head.close })
    }

    /// Reads behind `at`; the end of the connection is an error.
    async fn fill(&mut self, at: usize) -> Result<usize> {
        if at == self.buffer.len() {
            return Err(Error::new(ErrorKind::InvalidData, "a head that does not end"));
        }
        match self.stream.read(&mut self.buffer[at..]).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }

    /// Waits for the server to close.
    async fn end(&mut self) {
        while matches!(self.stream.read(&mut self.buffer).await, Ok(1..)) {}
    }
}

pub async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// A connection in clear, for as long as there are requests.
pub async fn clear(run: Rc<Run>) {
    loop {
        match connect(run.plan.address).await {
            Ok(tcp) => {
                if !requests(&run, Connection::new(tcp)).await {
                    return;
                }
            }
            Err(_) => run.refused().await,
        }
    }
}

/// The same over TLS.
pub async fn over_tls(run: Rc<Run>, tls: Client) {
    loop {
        let stream = async { tls.connect(connect(run.plan.address).await?).await };
        match stream.await {
            Ok(stream) => {
                if !requests(&run, Connection::new(stream)).await {
                    return;
                }
            }
            Err(_) => run.refused().await,
        }
    }
}

/// Requests until the connection ends; false when there are no more.
async fn requests<S: AsyncRead + AsyncWrite + Unpin>(run: &Run, mut connection: Connection<S>) -> bool {
    while let Some(turn) = run.turn().await {
        match request(run, turn, &mut connection).await {
            Ok(answer) if answer.close => return true,
            Ok(_) => {}
            Err(_) => return true,
        }
    }
    false
}

async fn request<S: AsyncRead + AsyncWrite + Unpin>(run: &Run, turn: Turn, connection: &mut Connection<S>) -> Result<Answer> {
    let requests = &run.plan.requests.http1;
    let done = connection.exchange(&requests[run.any(requests.len())], |_| {}).await;
    match &done {
        Ok(answer) => run.answered(turn, answer.status, answer.size),
        Err(_) => run.failed(turn).await,
    }
    done
}

/// A TLS connection for every request. The requests ask the server to close, so that ports are not used up on this side.
pub async fn handshakes(run: Rc<Run>, tls: Client) {
    while let Some(turn) = run.turn().await {
        let stream = async { tls.connect(connect(run.plan.address).await?).await };
        match stream.await {
            Ok(stream) => {
                let mut connection = Connection::new(stream);
                if request(&run, turn, &mut connection).await.is_ok() {
                    connection.end().await;
                }
            }
            Err(_) => run.refused().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answered(text: &'static str, piece: usize) -> (Result<Answer>, Vec<u8>) {
        let (client, mut server) = duplex(4096);
        let serve = async move {
            let mut request = [0; 64];
            let _ = server.read(&mut request).await;
            for piece in text.as_bytes().chunks(piece) {
                let _ = server.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        };
        let ask = async {
            let mut body = Vec::new();
            let answer = Connection::new(client).exchange(b"GET / HTTP/1.1\r\n\r\n", |bytes| body.extend_from_slice(bytes)).await;
            (answer, body)
        };
        tokio::join!(serve, ask).1
    }

    #[tokio::test]
    async fn answers_in_every_framing() {
        for piece in [1, 7, 1000] {
            let (answer, body) = answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", piece).await;
            assert_eq!((answer.expect("whole"), body.as_slice()), (Answer { status: 200, size: 5, close: false }, &b"hello"[..]));
            let (answer, body) =
                answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", piece).await;
            assert_eq!((answer.expect("whole").size, body.as_slice()), (4, &b"abcd"[..]));
            let (answer, _) = answered("HTTP/1.1 503 No\r\nConnection: close\r\n\r\nbye", piece).await;
            assert_eq!(answer.expect("whole"), Answer { status: 503, size: 3, close: true });
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off() {
        let (answer, _) = answered("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", 100).await;
        assert_eq!(answer.expect_err("the end comes too early").kind(), ErrorKind::UnexpectedEof);
    }
}
