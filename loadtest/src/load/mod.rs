//! The generator: requests over many connections from one thread, and what came back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`schedule`] | when requests are due in an open loop |
//! | [`response`] | HTTP/1.1 answers, read with little work |
//! | [`events`] | many open streams of server-sent events |
//! | [`http1`] | requests over HTTP/1.1, in clear and over TLS |
//! | [`http2`] | requests over HTTP/2 |
//! | [`websocket`] | messages that an echo sends back |
//! | [`tls`] | the client's side of TLS |

pub mod events;
pub mod http1;
pub mod http2;
pub mod response;
pub mod schedule;
pub mod tls;
pub mod websocket;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::usage::{CpuTimes, of_this_thread};
use schedule::{Pacer, Schedule};

/// How long requests that were due in time may take behind the end of an open loop.
const GRACE: Duration = Duration::from_secs(10);
/// Pause after a connection that could not be opened or broke.
const BACK_OFF: Duration = Duration::from_millis(20);

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Tls,
    /// A new TLS connection for every request.
    TlsHandshake,
    /// HTTP/2 in clear, with prior knowledge; this many requests at a time on each connection.
    Http2(usize),
    /// HTTP/2 over TLS.
    Http2Tls(usize),
    WebSocket,
}

/// Requests to choose from, ready to be sent.
pub struct Requests {
    pub http1: Vec<Vec<u8>>,
    /// The same for HTTP/2: path and fields.
    pub http2: Vec<http2::Request>,
    /// Bytes of the body of the right answer.
    pub answer: u64,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the answer to the one before is there.
    Closed,
    /// At this rate a second.
    Open(f64),
}

#[derive(Clone)]
pub struct Plan {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub connections: usize,
    pub requests: Rc<Requests>,
    pub pace: Pace,
    /// Before anything counts.
    pub warm_up: Duration,
    pub window: Duration,
}

/// What came back.
pub struct Tally {
    pub answers: u64,
    /// Answers with another status than 2xx.
    pub not_2xx: u64,
    /// Answers with a body of another size than the right one.
    pub wrong: u64,
    /// Connections that could not be opened or broke, and requests without an answer.
    pub failed: u64,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latencies = Histogram::new_with_bounds(1_000, 100_000_000_000, 3).expect("the bounds are in order");
        Self { answers: 0, not_2xx: 0, wrong: 0, failed: 0, latencies }
    }
}

impl Tally {
    fn latency(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(nanoseconds);
    }

    /// A quantile in microseconds; 0 when there was no answer.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        if self.latencies.is_empty() { 0.0 } else { self.latencies.value_at_quantile(quantile) as f64 / 1e3 }
    }
}

/// What connections share.
pub struct Run {
    pub plan: Plan,
    tally: RefCell<Tally>,
    pacer: Option<Pacer>,
    /// Numbers of an open loop below this are its warm-up.
    counts_from: u64,
    random: Cell<u64>,
}

/// A request under way.
#[derive(Clone, Copy)]
pub struct Turn {
    due: Instant,
    counts: bool,
}

impl Run {
    fn new(plan: Plan) -> Rc<Self> {
        let (pacer, counts_from) = match plan.pace {
            Pace::Closed => (None, 0),
            Pace::Open(rate) => {
                let numbers = |time: Duration| (time.as_secs_f64() * rate) as u64;
                let count = numbers(plan.warm_up + plan.window);
                (Some(Pacer::new(Schedule::new(Instant::now(), rate), count)), numbers(plan.warm_up))
            }
        };
        Rc::new(Self { plan, tally: RefCell::default(), pacer, counts_from, random: Cell::new(0x9e37_79b9_7f4a_7c15) })
    }

    /// Waits until a request is to be sent; `None` when there are no more.
    pub async fn turn(&self) -> Option<Turn> {
        match &self.pacer {
            None => Some(Turn { due: Instant::now(), counts: true }),
            Some(pacer) => pacer.take().await.map(|(n, due)| Turn { due, counts: n >= self.counts_from }),
        }
    }

    /// One of `n`, at random.
    pub fn any(&self, n: usize) -> usize {
        if n == 1 {
            return 0;
        }
        // xorshift64: every run sends the same sequence
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x % n as u64) as usize
    }

    pub fn answered(&self, turn: Turn, status: u16, size: u64) {
        if !turn.counts {
            return;
        }
        let mut tally = self.tally.borrow_mut();
        tally.answers += 1;
        if !(200..300).contains(&status) {
            tally.not_2xx += 1;
        } else if size != self.plan.requests.answer {
            tally.wrong += 1;
        }
        tally.latency(turn.due.elapsed());
    }

    /// A request got no answer. Its time counts as well: it is part of what clients see.
    pub async fn failed(&self, turn: Turn) {
        if turn.counts {
            let mut tally = self.tally.borrow_mut();
            tally.failed += 1;
            tally.latency(turn.due.elapsed());
        }
        tokio::time::sleep(BACK_OFF).await;
    }

    /// A connection could not be opened.
    pub async fn refused(&self) {
        self.tally.borrow_mut().failed += 1;
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// The result of a run.
pub struct Outcome {
    pub tally: Tally,
    pub elapsed: Duration,
    /// CPU of the measured process in that time.
    pub cpu: Duration,
    /// CPU of the generator in that time.
    pub own_cpu: Duration,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.tally.answers as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU of the measured process for each answer, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.tally.answers.max(1) as f64
    }

    /// CPU of the generator for each answer, in microseconds.
    pub fn own_cpu_us(&self) -> f64 {
        self.own_cpu.as_secs_f64() * 1e6 / self.tally.answers.max(1) as f64
    }

    /// Share of its CPU that the measured process used.
    pub fn busy(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// Sends requests as planned and measures a process (0: none) meanwhile. Needs a `LocalSet`.
pub async fn run(plan: Plan, measured: u32) -> Result<Outcome> {
    let run = Run::new(plan);
    let tls = tls::Client::new(run.plan.protocol)?;
    let mut tasks = JoinSet::new();
    for _ in 0..run.plan.connections {
        let run = Rc::clone(&run);
        let tls = tls.clone();
        match run.plan.protocol {
            Protocol::Http1 => tasks.spawn_local(http1::clear(run)),
            Protocol::Tls => tasks.spawn_local(http1::over_tls(run, tls)),
            Protocol::TlsHandshake => tasks.spawn_local(http1::handshakes(run, tls)),
            Protocol::Http2(streams) => tasks.spawn_local(http2::clear(run, streams)),
            Protocol::Http2Tls(streams) => tasks.spawn_local(http2::over_tls(run, streams, tls)),
            Protocol::WebSocket => tasks.spawn_local(websocket::messages(run)),
        };
    }
    let start = Instant::now();
    let pacing = async {
        match &run.pacer {
            Some(pacer) => pacer.run().await,
            None => std::future::pending().await,
        }
    };
    let measuring = async {
        tokio::time::sleep(run.plan.warm_up).await;
        if run.plan.pace == Pace::Closed {
            *run.tally.borrow_mut() = Tally::default();
        }
        let (began, before, own) = (Instant::now(), CpuTimes::of_tree(measured), of_this_thread());
        let left = (start + run.plan.warm_up + run.plan.window).saturating_duration_since(began);
        tokio::time::sleep(left).await;
        let elapsed = began.elapsed();
        (elapsed, CpuTimes::of_tree(measured).since(&before), of_this_thread().saturating_sub(own))
    };
    let (elapsed, cpu, own_cpu) = alongside(measuring, pacing).await?;
    if run.pacer.is_some() {
        // what was due in time is waited for, or charged with the time until now
        let _ = tokio::time::timeout(GRACE, async { while tasks.join_next().await.is_some() {} }).await;
    }
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    let mut tally = run.tally.take();
    if let Some(pacer) = &run.pacer {
        charge_unanswered(&mut tally, pacer, run.counts_from);
    }
    Ok(Outcome { tally, elapsed, cpu, own_cpu })
}

/// Requests of an open loop that were never sent, or never answered.
fn charge_unanswered(tally: &mut Tally, pacer: &Pacer, from: u64) {
    let missing = (pacer.count() - from).saturating_sub(tally.latencies.len());
    tally.failed += missing;
    for _ in 0..missing {
        tally.latency(GRACE);
    }
}

/// Runs `main` to its end, and `beside` for as long; an error of `beside` ends both.
async fn alongside<T>(main: impl Future<Output = T>, beside: impl Future<Output = Result<()>>) -> Result<T> {
    let (main, beside) = (std::pin::pin!(main), std::pin::pin!(beside));
    let mut main = main;
    tokio::select! {
        done = &mut main => Ok(done),
        ended = beside => { ended?; Ok(main.await) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_in_microseconds() {
        let mut tally = Tally::default();
        assert_eq!(tally.latency_us(0.5), 0.0);
        for ms in 1..=100 {
            tally.latency(Duration::from_millis(ms));
        }
        assert!((tally.latency_us(0.5) / 50_000.0 - 1.0).abs() < 0.002, "{}", tally.latency_us(0.5));
        assert!((tally.latency_us(0.99) / 99_000.0 - 1.0).abs() < 0.002);
    }

    #[test]
    fn what_never_came_is_charged() {
        let mut tally = Tally::default();
        tally.latency(Duration::from_millis(1));
        charge_unanswered(&mut tally, &Pacer::new(Schedule::new(Instant::now(), 1.0), 5), 2);
        assert_eq!((tally.failed, tally.latencies.len()), (2, 3));
        assert!(tally.latency_us(0.99) > 9e6);
    }
}
