//! Runs scenarios: starts what each needs, measures in interleaved rounds, stops everything.
//!
//! | module | what it holds |
//! |---|---|
//! | [`requests`] | requests as fast as they are answered |
//! | [`events`] | open streams of server-sent events |
//! | [`changes`] | changes of the configuration, under load and alone |

mod changes;
mod events;
mod requests;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::load::{Outcome, Pace, Plan, Protocol};
use crate::measure::{Metric, Round, Sample};
use crate::peers::{Listeners, Peer, Place};
use crate::scenarios::{Kind, NGINX, Scenario, TROOP};
use crate::troop::{Launch, Refused, Store, facts};
use crate::usage::resident_mb;

/// No scenario takes longer.
const LONGEST: Duration = Duration::from_secs(20 * 60);
/// After what changes memory, before it is looked at.
const SETTLE: Duration = Duration::from_secs(1);

/// How thoroughly is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// Of one measurement.
    pub window: Duration,
    pub warm_up: Duration,
    /// Open streams of events.
    pub streams: usize,
    /// Reconfigurations.
    pub changes: usize,
}

/// What a scenario came to.
pub struct Finding {
    pub scenario: &'static Scenario,
    pub state: State,
    pub rounds: Vec<Round>,
    pub notes: Vec<String>,
    pub took: Duration,
}

pub enum State {
    Measured,
    /// Troop does not have it.
    NotAvailable(String),
    Failed(String),
}

/// Everything that measurements share.
pub struct Bench {
    pub place: Place,
    pub launch: Launch,
    pub peers: Vec<Peer>,
    pub effort: Effort,
}

/// Rounds and remarks of a scenario while it is measured.
#[derive(Default)]
struct Notebook {
    rounds: Vec<Round>,
    notes: Vec<String>,
}

impl Bench {
    /// Runs a scenario to its end.
    pub async fn measure(&self, scenario: &'static Scenario) -> Finding {
        say(&format!("{}: {}", scenario.name, scenario.title));
        let began = Instant::now();
        let mut notebook = Notebook::default();
        let measuring = async {
            match scenario.kind {
                Kind::Requests => self.requests(scenario, &mut notebook).await,
                Kind::Events => self.events(scenario, &mut notebook).await,
                Kind::Changing => self.changing(scenario, &mut notebook).await,
                Kind::Reconfigured => self.reconfigured(scenario, &mut notebook).await,
                Kind::Reloaded => self.reloaded(scenario, &mut notebook).await,
                Kind::Idle => self.idle(scenario, &mut notebook).await,
            }
        };
        let done = tokio::time::timeout(LONGEST, measuring).await;
        let state = match done {
            Ok(Ok(())) => State::Measured,
            Ok(Err(Refused::NotAvailable(why))) => State::NotAvailable(why),
            Ok(Err(Refused::Failed(error))) => State::Failed(format!("{error:#}")),
            Err(_) => State::Failed("took too long".to_owned()),
        };
        match &state {
            State::Measured => {}
            State::NotAvailable(why) => say(&format!("  not available: {why}")),
            State::Failed(why) => say(&format!("  failed: {why}")),
        }
        Finding { scenario, state, rounds: notebook.rounds, notes: notebook.notes, took: began.elapsed() }
    }

    /// Memory of gateways that have not had a request yet, and the size of Troop's binary.
    async fn idle(&self, scenario: &Scenario, notebook: &mut Notebook) -> Result<(), Refused> {
        let mut round = Round::new();
        for peer in self.peers.iter().filter(|peer| !matches!(peer, Peer::Kong { .. })) {
            let running = peer.start(&self.place).await?;
            tokio::time::sleep(SETTLE).await;
            round.insert(peer.name(), Sample::from([(Metric::Rss, running.pid.map_or(0.0, resident_mb))]));
        }
        let troop = self.launch.start(&self.place, &scenario.setup, Store::Declared).await?;
        tokio::time::sleep(SETTLE).await;
        let (_, size) = facts(&self.launch.binary)?;
        let rss = troop.running.pid.map_or(0.0, resident_mb);
        round.insert(TROOP, Sample::from([(Metric::Rss, rss), (Metric::BinaryMb, size)]));
        notebook.record(round);
        Ok(())
    }

    /// Loads nginx as it answers by itself, on the proxy's CPU: what the generator costs and how far it goes.
    pub async fn calibrate(&self) -> Result<Vec<(usize, Sample)>> {
        let mut samples = Vec::new();
        // a second upstream, which has the CPU of the proxy to itself
        let cpus = crate::cpu::Cpus { upstream: self.place.cpus.proxy, ..self.place.cpus };
        let alone = Place::prepare(cpus).await?;
        for connections in [1, 64, 256] {
            let asks = crate::scenarios::Asks { connections, ..crate::scenarios::SCENARIOS[0].asks };
            let plan = self.plan(&asks, &crate::scenarios::SCENARIOS[0].setup, alone.upstream)?;
            let pid = alone.upstream_id();
            samples.push((connections, sample(&crate::load::run(plan, pid).await?, pid)));
        }
        Ok(samples)
    }

    fn plan(&self, asks: &crate::scenarios::Asks, setup: &crate::scenarios::Setup, address: SocketAddr) -> Result<Plan> {
        Ok(Plan {
            protocol: asks.protocol,
            address,
            connections: asks.connections,
            requests: crate::documents::requests(asks, setup, address)?.into(),
            pace: Pace::Closed,
            warm_up: self.effort.warm_up,
            window: self.effort.window,
        })
    }
}

impl Notebook {
    /// Adds a round and says what it has shown.
    fn record(&mut self, round: Round) {
        for (subject, sample) in &round {
            let figure = |(metric, value): (&Metric, &f64)| format!("{} {value:.*}", metric.label(), metric.digits());
            let wanted = |(metric, value): &(&Metric, &f64)| !metric.only_when_wrong() || **value > 0.0;
            let figures: Vec<String> = sample.iter().filter(wanted).map(figure).collect();
            let compared = round.get(NGINX).and_then(|nginx| Some(sample.get(&Metric::CpuUs)? / nginx.get(&Metric::CpuUs)?));
            let compared = compared.map(|ratio| format!(" [{ratio:.2} of nginx]")).unwrap_or_default();
            say(&format!("  {}. {subject}: {}{compared}", self.rounds.len() + 1, figures.join(", ")));
        }
        self.rounds.push(round);
    }
}

/// Where a gateway takes requests of a protocol.
fn address(listeners: &Listeners, protocol: Protocol) -> Option<SocketAddr> {
    match protocol {
        Protocol::Http1 | Protocol::WebSocket => Some(listeners.http),
        Protocol::Http2(_) => listeners.h2c,
        Protocol::Tls | Protocol::TlsHandshake | Protocol::Http2Tls(_) => listeners.https,
    }
}

/// That address, if somebody listens there.
fn open_address(listeners: &Listeners, protocol: Protocol) -> Result<SocketAddr, Refused> {
    let address = address(listeners, protocol).filter(|address| TcpStream::connect(address).is_ok());
    address.ok_or_else(|| Refused::NotAvailable(format!("no listener for {protocol:?}")))
}

/// The figures of a run.
fn sample(outcome: &Outcome, pid: u32) -> Sample {
    let tally = &outcome.tally;
    let ms = |quantile| tally.latency_us(quantile) / 1e3;
    let mut sample = Sample::from([
        (Metric::Rate, outcome.rate()),
        (Metric::P50, ms(0.5)),
        (Metric::P99, ms(0.99)),
        (Metric::P999, ms(0.999)),
        (Metric::LoadUs, outcome.own_cpu_us()),
        (Metric::Failed, tally.failed as f64),
        (Metric::Not2xx, tally.not_2xx as f64),
        (Metric::Wrong, tally.wrong as f64),
    ]);
    if pid > 0 {
        sample.insert(Metric::CpuUs, outcome.cpu_us());
        sample.insert(Metric::Capacity, 1e6 / outcome.cpu_us());
        sample.insert(Metric::Busy, outcome.busy() * 100.0);
        sample.insert(Metric::Rss, resident_mb(pid));
    }
    sample
}

/// Writes a line for whoever waits.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The process of something that was started by this program.
fn id(pid: Option<u32>) -> Result<u32> {
    pid.context("its process is not known")
}
