//! Many open streams of server-sent events: how soon each begins, and whether every event arrives at once and by itself.

use std::cell::RefCell;
use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::live::{Live, sent_at};
use crate::load::Tally;
use crate::load::http1::connect;
use crate::load::response::{Chunks, Framing, Part, head};

/// An event that takes longer was held back by somebody: it waited for the next one, or for a buffer to fill.
const DELAYED: Duration = Duration::from_millis(100);
/// A stream that has not begun by then has failed.
const BEGINS: Duration = Duration::from_secs(5);
/// Between two streams that are opened.
const PAUSE: Duration = Duration::from_millis(1);

/// What was seen of all streams.
#[derive(Default)]
pub struct Seen {
    /// From the request to the first event.
    pub first: Tally,
    /// From an event's sending to its arrival; without the first of each stream.
    pub delays: Tally,
    pub events: u64,
    /// Chunks that are not exactly one event.
    pub joined: u64,
    pub delayed: u64,
    /// Streams that did not begin or did not last.
    pub failed: u64,
}

/// Open streams.
pub struct Streams {
    seen: Rc<RefCell<Seen>>,
    reading: JoinSet<()>,
}

impl Streams {
    /// Opens streams one after the other. Needs a `LocalSet`.
    pub async fn open(address: SocketAddr, request: &[u8], count: usize, live: &Rc<Live>) -> Self {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let mut reading = JoinSet::new();
        for _ in 0..count {
            match tokio::time::timeout(BEGINS, begin(address, request, &seen)).await {
                Ok(Ok(stream)) => {
                    reading.spawn_local(stream.read(Rc::clone(live), Rc::clone(&seen)));
                }
                _ => seen.borrow_mut().failed += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Self { seen, reading }
    }

    /// Closes them; what was seen.
    pub async fn close(mut self) -> Seen {
        self.reading.abort_all();
        while self.reading.join_next().await.is_some() {}
        self.seen.take()
    }
}

/// A stream whose first event is there.
struct Stream {
    tcp: TcpStream,
    chunks: Chunks,
    chunk: Vec<u8>,
    /// Whether the server sends chunks: else every read is taken for one.
    chunked: bool,
}

async fn begin(address: SocketAddr, request: &[u8], seen: &RefCell<Seen>) -> Result<Stream> {
    let mut tcp = connect(address).await?;
    let asked = Instant::now();
    tcp.write_all(request).await?;
    let (mut buffer, mut filled) = ([0; 4096], 0);
    let head = loop {
        match tcp.read(&mut buffer[filled..]).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
        if let Some(head) = head(&buffer[..filled])? {
            break head;
        }
    };
    if head.status != 200 {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut stream = Stream { tcp, chunks: Chunks::default(), chunk: Vec::new(), chunked: head.framing == Framing::Chunked };
    let mut first = stream.take(&buffer[head.len..filled])?;
    while first.is_empty() {
        match stream.tcp.read(&mut buffer).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => first = stream.take(&buffer[..n])?,
        }
    }
    let mut seen = seen.borrow_mut();
    seen.first.latency(asked.elapsed());
    seen.joined += u64::from(first.len() != 1 || first[0].is_none());
    Ok(stream)
}

impl Stream {
    /// The chunks that these bytes complete: when each one's event was sent, if it is one event.
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<Option<Duration>>> {
        if !self.chunked {
            return Ok(if bytes.is_empty() { Vec::new() } else { vec![sent_at(bytes)] });
        }
        let mut complete = Vec::new();
        let chunk = &mut self.chunk;
        self.chunks.feed(bytes, |part| match part {
            Part::Data(data) => chunk.extend_from_slice(data),
            Part::ChunkEnd => {
                complete.push(sent_at(chunk));
                chunk.clear();
            }
            Part::End => {}
        })?;
        Ok(complete)
    }

    async fn read(mut self, live: Rc<Live>, seen: Rc<RefCell<Seen>>) {
        // small on purpose: thousands of these are open
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = self.tcp.read(&mut buffer).await {
            let now = live.now();
            let Ok(complete) = self.take(&buffer[..n]) else { break };
            let mut seen = seen.borrow_mut();
            for sent in complete {
                seen.events += 1;
                let Some(sent) = sent else {
                    seen.joined += 1;
                    continue;
                };
                let delay = now.saturating_sub(sent);
                seen.delays.latency(delay);
                seen.delayed += u64::from(delay > DELAYED);
            }
        }
        seen.borrow_mut().failed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_from_the_upstream_itself() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let live = Rc::new(Live::start().await.expect("it listens"));
                let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", crate::live::EVENTS);
                let streams = Streams::open(live.address, request.as_bytes(), 20, &live).await;
                assert!(live.streams(20).await);
                live.emit(3, Duration::from_millis(100)).await.expect("events are sent");
                tokio::time::sleep(Duration::from_millis(50)).await;
                let seen = streams.close().await;
                assert_eq!(live.close(), 0);
                assert_eq!((seen.events, seen.joined, seen.failed), (60, 0, 0));
                assert_eq!((seen.first.latencies.len(), seen.delays.latencies.len()), (20, 60));
            })
            .await;
    }
}
