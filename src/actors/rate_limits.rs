//! The owner of the counters of rate limits. Workers count on the table by themselves; the owner takes out what is over, a
//! part of the table at a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, AsyncContext, Context};
use actix_rt::ArbiterHandle;

use crate::actors::supervise::{Supervised, supervise};
use crate::plugin::counters::{Counters, Moment};

/// Time between two parts; the whole table takes 16 s.
const PAUSE: Duration = Duration::from_millis(500);

pub struct RateLimits {
    counters: Arc<Counters>,
    part: usize,
}

impl RateLimits {
    /// Starts the owner of these counters.
    pub fn start(counters: Arc<Counters>, arbiter: &ArbiterHandle) -> Supervised<Self> {
        supervise("rate limits", arbiter, 16, move || Self { counters: counters.clone(), part: 0 })
    }
}

impl Actor for RateLimits {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(PAUSE, |this, _| {
            this.counters.sweep(this.part, Moment::from(SystemTime::now()));
            this.part = (this.part + 1) % Counters::PARTS;
        });
    }
}
