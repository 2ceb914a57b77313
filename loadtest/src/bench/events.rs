//! Open streams of server-sent events.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{Bench, Notebook, SETTLE, id, say};
use crate::live::EVENTS;
use crate::load::events::Streams;
use crate::measure::{Metric, Round, Sample};
use crate::peers::{Peer, Running};
use crate::scenarios::{DIRECT, Scenario, TROOP};
use crate::troop::{Refused, Store};
use crate::usage::resident_mb;

/// Between two events of a stream.
const PERIOD: Duration = Duration::from_secs(1);
/// Events need so long at most until nobody waits for them.
const ARRIVED: Duration = Duration::from_millis(500);

impl Bench {
    /// Processes are started anew in each round: memory that streams have taken is not always given back.
    pub(super) async fn events(&self, scenario: &Scenario, notebook: &mut Notebook) -> Result<(), Refused> {
        for _ in 0..self.effort.rounds {
            let mut round = Round::new();
            let direct = self.streams(self.place.live.address, None).await?;
            let first_byte = direct.get(&Metric::FirstByte).copied().unwrap_or_default();
            round.insert(DIRECT, direct);
            for peer in self.peers.iter().filter(|peer| !matches!(peer, Peer::Kong { .. })) {
                let running = peer.start(&self.place).await?;
                round.insert(peer.name(), self.through(&running, first_byte).await?);
            }
            let troop = self.launch.start(&self.place, &scenario.setup, Store::Declared).await?;
            round.insert(TROOP, self.through(&troop.running, first_byte).await?);
            notebook.record(round);
        }
        Ok(())
    }

    async fn through(&self, running: &Running, direct: f64) -> Result<Sample> {
        let mut sample = self.streams(running.listeners.http, Some(id(running.pid)?)).await?;
        if let Some(first) = sample.get(&Metric::FirstByte).copied() {
            sample.insert(Metric::FirstByteAdded, first - direct);
        }
        Ok(sample)
    }

    async fn streams(&self, address: std::net::SocketAddr, pid: Option<u32>) -> Result<Sample> {
        let live = &self.place.live;
        let count = self.effort.streams;
        let request = format!("GET {EVENTS} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
        // buffers that a single stream makes are not the streams'
        Streams::open(address, request.as_bytes(), 1, live).await.close().await;
        live.close();
        let before = pid.map(resident_mb);
        let streams = Streams::open(address, request.as_bytes(), count, live).await;
        if !live.streams(count).await {
            let failed = streams.close().await.failed;
            return Err(anyhow!("only {} of {count} streams are open, {failed} failed", live.open()));
        }
        live.emit(self.effort.window.as_secs().max(1), PERIOD).await?;
        tokio::time::sleep(ARRIVED).await;
        let after = pid.map(resident_mb);
        let seen = streams.close().await;
        let refused = live.close();
        if refused > 0 {
            say(&format!("  {refused} events could not be sent at once"));
        }
        tokio::time::sleep(SETTLE).await;
        let mut sample = Sample::from([
            (Metric::FirstByte, seen.first.latency_us(0.5) / 1e3),
            (Metric::EventP50, seen.delays.latency_us(0.5) / 1e3),
            (Metric::EventP99, seen.delays.latency_us(0.99) / 1e3),
            (Metric::Joined, seen.joined as f64),
            (Metric::Delayed, seen.delayed as f64),
            (Metric::Failed, seen.failed as f64),
        ]);
        if let (Some(before), Some(after)) = (before, after) {
            sample.insert(Metric::StreamKb, (after - before) * 1e3 / count as f64);
            sample.insert(Metric::Rss, after);
        }
        Ok(sample)
    }
}
