//! Changes of the configuration: what they do to requests, what they cost, what memory they leave behind.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Bench, Notebook, SETTLE, id, open_address, sample};
use crate::admin::Admin;
use crate::documents::{SERVICE, document};
use crate::load::schedule::{Pacer, Schedule};
use crate::load::{self, Pace, Plan};
use crate::measure::{Metric, Round, Sample};
use crate::scenarios::{CHANGING, QUIET, Scenario, TROOP};
use crate::troop::{Refused, Store};
use crate::usage::{CpuTimes, resident_mb};

/// Changes a second under load.
const RATE: f64 = 100.0;
/// Connections to the Admin API under load.
const WRITERS: usize = 4;
/// For each round of other scenarios: the slowest hundredth scatters more from one run to the next than CPU does.
const ROUNDS: usize = 3;

impl Bench {
    pub(super) async fn changing(&self, scenario: &Scenario, notebook: &mut Notebook) -> Result<(), Refused> {
        let troop = self.launch.start(&self.place, &scenario.setup, Store::Embedded).await?;
        let pid = id(troop.running.pid)?;
        let plan = self.plan(&scenario.asks, &scenario.setup, open_address(&troop.running.listeners, scenario.asks.protocol)?)?;
        let greatest = load::run(plan.clone(), pid).await?.rate();
        notebook.notes.push(format!("greatest rate {greatest:.0}/s, measured at {:.0}/s", greatest / 2.0));
        let plan = Plan { pace: Pace::Open(greatest / 2.0), ..plan };
        for _ in 0..self.effort.rounds * ROUNDS {
            let quiet = load::run(plan.clone(), pid).await?;
            let (changing, written) = self.while_changing(plan.clone(), pid, troop.admin.address()).await?;
            let mut under = sample(&changing, pid);
            under.extend(written);
            notebook.record(Round::from([(QUIET, sample(&quiet, pid)), (CHANGING, under)]));
        }
        Ok(())
    }

    /// A run beside which changes are written all the time.
    async fn while_changing(&self, plan: Plan, pid: u32, admin: SocketAddr) -> Result<(load::Outcome, Sample)> {
        let count = ((plan.warm_up + plan.window).as_secs_f64() * RATE) as u64;
        let pacer = Rc::new(Pacer::new(Schedule::new(Instant::now(), RATE), count));
        let (done, failed) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64)));
        let began = Instant::now();
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let (pacer, done, failed) = (Rc::clone(&pacer), Rc::clone(&done), Rc::clone(&failed));
            writers.spawn_local(async move {
                let mut changes = Changes::new(Admin::new(admin), format!("changing-{number}"));
                while pacer.take().await.is_some() {
                    let counter = if changes.next().await.is_ok() { &done } else { &failed };
                    counter.set(counter.get() + 1);
                }
            });
        }
        let writing = async {
            pacer.run().await?;
            while writers.join_next().await.is_some() {}
            Ok::<_, anyhow::Error>(began.elapsed())
        };
        let (outcome, written) = tokio::join!(load::run(plan, pid), writing);
        let written = written?;
        let rate = done.get() as f64 / written.as_secs_f64();
        Ok((outcome?, Sample::from([(Metric::ChangeRate, rate), (Metric::ChangeFailed, failed.get() as f64)])))
    }

    pub(super) async fn reconfigured(&self, scenario: &Scenario, notebook: &mut Notebook) -> Result<(), Refused> {
        let troop = self.launch.start(&self.place, &scenario.setup, Store::Embedded).await?;
        let pid = id(troop.running.pid)?;
        self.warm(scenario, &troop.running.listeners, pid).await?;
        let mut changes = Changes::new(troop.admin, "changing".to_owned());
        let mut costs = Costs::begin(pid, self.effort.changes);
        for _ in 0..self.effort.changes {
            changes.next().await?;
            costs.made_one();
        }
        notebook.notes.push(format!("{} changes", self.effort.changes));
        notebook.record(Round::from([(TROOP, costs.end().await)]));
        Ok(())
    }

    pub(super) async fn reloaded(&self, scenario: &Scenario, notebook: &mut Notebook) -> Result<(), Refused> {
        let mut troop = self.launch.start(&self.place, &scenario.setup, Store::Declared).await?;
        let pid = id(troop.running.pid)?;
        self.warm(scenario, &troop.running.listeners, pid).await?;
        let sinks = self.place.sinks(self.place.directory.path());
        let mut document = document(&scenario.setup, &troop.plugins, self.place.upstream, self.place.live.address, &sinks);
        let mut costs = Costs::begin(pid, self.effort.changes);
        for number in 0..self.effort.changes {
            // one that is the same as before could be passed over
            document["services"][0]["tags"] = json!([format!("version-{number}")]);
            troop.admin.must("POST", "/config", &document).await?;
            costs.made_one();
        }
        notebook.notes.push(format!("{} documents", self.effort.changes));
        notebook.record(Round::from([(TROOP, costs.end().await)]));
        Ok(())
    }

    /// Some requests, so that the buffers of connections are there before memory is looked at.
    async fn warm(&self, scenario: &Scenario, listeners: &crate::peers::Listeners, pid: u32) -> Result<()> {
        load::run(self.plan(&scenario.asks, &scenario.setup, listeners.http)?, pid).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }
}

/// What changes cost, one after the other.
struct Costs {
    pid: u32,
    /// Changes in all.
    count: usize,
    made: usize,
    began: Instant,
    cpu: CpuTimes,
    /// Memory before and after a tenth of them: what grows once is told from what keeps growing.
    before: f64,
    tenth: f64,
}

impl Costs {
    fn begin(pid: u32, count: usize) -> Self {
        let before = resident_mb(pid);
        Self { pid, count, made: 0, began: Instant::now(), cpu: CpuTimes::of_tree(pid), before, tenth: before }
    }

    fn made_one(&mut self) {
        self.made += 1;
        if self.made * 10 == self.count {
            self.tenth = resident_mb(self.pid);
        }
    }

    async fn end(self) -> Sample {
        let n = self.made as f64;
        let cpu_ms = CpuTimes::of_tree(self.pid).since(&self.cpu).as_secs_f64() * 1e3 / n;
        let rate = n / self.began.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let after = resident_mb(self.pid);
        Sample::from([
            (Metric::MemoryBefore, self.before),
            (Metric::MemoryTenth, self.tenth),
            (Metric::MemoryAfter, after),
            (Metric::MemoryRatio, after / self.before),
            (Metric::ChangeCpu, cpu_ms),
            (Metric::ChangeRate, rate),
        ])
    }
}

/// Changes of one writer, each of which changes what is proxied: a route appears, changes, and goes.
struct Changes {
    admin: Admin,
    route: String,
    number: usize,
}

impl Changes {
    fn new(admin: Admin, name: String) -> Self {
        Self { admin, route: format!("/routes/{name}"), number: 0 }
    }

    async fn next(&mut self) -> Result<()> {
        let (method, body) = match self.number % 3 {
            0 => ("PUT", json!({"paths": [format!("/changing/{}", self.number)], "service": {"name": SERVICE}})),
            1 => ("PATCH", json!({"paths": [format!("/changed/{}", self.number)]})),
            _ => ("DELETE", Value::Null),
        };
        self.number += 1;
        self.admin.must(method, &self.route, &body).await.map(drop).context("a change was refused")
    }
}
