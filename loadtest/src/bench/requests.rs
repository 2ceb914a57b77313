//! Requests as fast as they are answered, subject after subject, round after round.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{Bench, Notebook, open_address, sample};
use crate::admin::Admin;
use crate::load::{self, Plan, Protocol};
use crate::measure::Round;
use crate::peers::{Peer, Running};
use crate::scenarios::{Asks, Beside, SCENARIOS, Scenario, Setup, TROOP};
use crate::troop::{Refused, Store, chosen, load};

/// How long is tried whether a subject answers as it should.
const TRIAL: Duration = Duration::from_millis(200);

/// Something that is measured.
struct Subject {
    name: &'static str,
    running: Running,
    plan: Plan,
}

impl Bench {
    pub(super) async fn requests(&self, scenario: &'static Scenario, notebook: &mut Notebook) -> Result<(), Refused> {
        let troop = self.launch.start(&self.place, &scenario.setup, Store::Declared).await?;
        if troop.plugins.len() < scenario.setup.plugins.len() {
            notebook.notes.push(format!("plugins that are there: {}", troop.plugins.join(", ")));
        }
        let troop = self.subject(TROOP, troop.running, &scenario.asks, &scenario.setup).await?;
        let mut subjects = Vec::new();
        for peer in &self.peers {
            match self.peer(peer, scenario).await {
                Ok(Some(subject)) => subjects.push(subject),
                Ok(None) => {}
                Err(Refused::NotAvailable(why)) => notebook.notes.push(format!("{}: {why}", peer.name())),
                Err(Refused::Failed(error)) => notebook.notes.push(format!("{}: {error:#}", peer.name())),
            }
        }
        subjects.push(troop);
        if let Some(reference) = &scenario.reference {
            let running = self.launch.start(&self.place, &reference.setup, Store::Declared).await?.running;
            subjects.push(self.subject(reference.name, running, &reference.asks, &reference.setup).await?);
        }
        for number in 0..self.effort.rounds {
            let mut round = Round::new();
            let count = subjects.len();
            for at in 0..count {
                // everybody is first once in a while
                let subject = &subjects[(at + number) % count];
                let pid = subject.running.pid.unwrap_or(0);
                let outcome = load::run(subject.plan.clone(), pid).await?;
                round.insert(subject.name, sample(&outcome, pid));
            }
            notebook.record(round);
        }
        Ok(())
    }

    /// A gateway beside Troop, if it has a part in the scenario.
    async fn peer(&self, peer: &Peer, scenario: &Scenario) -> Result<Option<Subject>, Refused> {
        let plain = &SCENARIOS[0];
        let (asks, setup) = match (peer, scenario.beside) {
            (Peer::Kong { admin: Some(_), .. }, _) | (_, Beside::Same) => (&scenario.asks, &scenario.setup),
            (Peer::Nginx, Beside::Plain) => (&plain.asks, &plain.setup),
            _ => return Ok(None),
        };
        if let Peer::Kong { admin: Some(address), .. } = peer {
            let mut admin = Admin::new(*address);
            let plugins = chosen(setup, &admin.plugins().await?)?;
            load(&mut admin, setup, &plugins, &self.place, &self.place.sinks(self.place.directory.path())).await?;
        }
        let running = peer.start(&self.place).await?;
        self.subject(peer.name(), running, asks, setup).await.map(Some)
    }

    /// A subject, once it has answered as it should.
    async fn subject(&self, name: &'static str, running: Running, asks: &Asks, setup: &Setup) -> Result<Subject, Refused> {
        let address = open_address(&running.listeners, asks.protocol)?;
        let plan = self.plan(asks, setup, address)?;
        let trial = Plan { connections: 1, warm_up: TRIAL, window: TRIAL, ..plan.clone() };
        let tally = load::run(trial, 0).await?.tally;
        if tally.answers == 0 && matches!(asks.protocol, Protocol::Http2(_) | Protocol::Http2Tls(_)) {
            return Err(Refused::NotAvailable("no HTTP/2 on that listener".to_owned()));
        }
        if tally.answers == 0 || tally.failed + tally.not_2xx + tally.wrong > 0 {
            let (failed, not_2xx, wrong) = (tally.failed, tally.not_2xx, tally.wrong);
            return Err(anyhow!("{name}: of {} answers {not_2xx} not 2xx, {wrong} of a wrong size; {failed} failed", tally.answers).into());
        }
        Ok(Subject { name, running, plan })
    }
}
