//! The upstream of what nginx does not serve: WebSocket echoes and server-sent events, from this process.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::load::schedule::{Pacer, Schedule};
use crate::load::websocket;

/// Path of WebSockets.
pub const ECHO: &str = "/live/echo";
/// Path of events.
pub const EVENTS: &str = "/live/events";

/// How long the upstream waits for requests to be spread over its streams.
const OPENING: Duration = Duration::from_secs(5);
/// Fills an event up to about a hundred bytes.
const PADDING: &str = "................................................................";

/// The running upstream. Ends when it is dropped.
pub struct Live {
    pub address: SocketAddr,
    shared: Rc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    /// Stamps in events count from here.
    began: Instant,
    streams: RefCell<Vec<TcpStream>>,
    /// Events that a stream did not take at once.
    refused: Cell<u64>,
}

impl Live {
    /// Needs a `LocalSet`.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Rc::new(Shared { began: Instant::now(), streams: RefCell::default(), refused: Cell::new(0) });
        let sharing = Rc::clone(&shared);
        let accepting = tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // a client that goes away is no event
                tokio::task::spawn_local(serve(stream, Rc::clone(&sharing)));
            }
        });
        Ok(Self { address, shared, accepting })
    }

    /// Waits until this many streams of events are open.
    pub async fn streams(&self, wanted: usize) -> bool {
        let started = Instant::now();
        while self.open() < wanted {
            if started.elapsed() > OPENING {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Streams that are open.
    pub fn open(&self) -> usize {
        self.shared.streams.borrow().len()
    }

    /// Sends `rounds` events to every stream, evenly spread over `period` each, one after the other: so that no event waits
    /// in this process for another.
    pub async fn emit(&self, rounds: u64, period: Duration) -> Result<()> {
        let n = self.open() as u64;
        if n == 0 {
            return Ok(());
        }
        let schedule = Schedule::new(Instant::now(), n as f64 / period.as_secs_f64());
        let pacer = Pacer::new(schedule, n * rounds);
        let send = async {
            while let Some((number, _)) = pacer.take().await {
                let streams = self.shared.streams.borrow();
                let Some(stream) = streams.get((number % n) as usize) else { continue };
                let chunk = chunk(&event(number, self.shared.began.elapsed()));
                if !matches!(stream.try_write(chunk.as_bytes()), Ok(written) if written == chunk.len()) {
                    self.shared.refused.set(self.shared.refused.get() + 1);
                }
            }
        };
        tokio::join!(send, pacer.run()).1
    }

    /// Closes all streams; how many events could not be sent.
    pub fn close(&self) -> u64 {
        self.shared.streams.borrow_mut().clear();
        self.shared.refused.take()
    }

    /// The time as events have it.
    pub fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: Rc<Shared>) -> Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut filled) = ([0; 8192], 0);
    while memmem::find(&buffer[..filled], b"\r\n\r\n").is_none() {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
            n => filled += n,
        }
    }
    let line = buffer[..filled].split(|byte| *byte == b'\r').next().unwrap_or_default();
    if memmem::find(line, ECHO.as_bytes()).is_some() {
        stream.write_all(websocket::switched().as_bytes()).await?;
        return Ok(websocket::echo(stream).await?);
    }
    let first = chunk(&event(0, shared.began.elapsed()));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}{first}").as_bytes()).await?;
    shared.streams.borrow_mut().push(stream);
    Ok(())
}

/// An event that says when it was sent.
fn event(number: u64, at: Duration) -> String {
    format!("id: {number}\ndata: {} {PADDING}\n\n", at.as_nanos())
}

fn chunk(event: &str) -> String {
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// When the one event in a chunk was sent; `None` when the chunk is anything but one whole event.
pub fn sent_at(chunk: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(chunk).ok()?;
    let rest = text.strip_prefix("id: ")?.strip_suffix(&format!(" {PADDING}\n\n"))?;
    let (_, stamp) = rest.split_once("\ndata: ")?;
    stamp.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_from_less_and_more() {
        let one = event(7, Duration::from_millis(1500));
        assert_eq!(sent_at(one.as_bytes()), Some(Duration::from_millis(1500)));
        assert_eq!(sent_at(&one.as_bytes()[..one.len() - 1]), None);
        assert_eq!(sent_at(one.repeat(2).as_bytes()), None);
        assert_eq!(chunk("abc"), "3\r\nabc\r\n");
    }
}
