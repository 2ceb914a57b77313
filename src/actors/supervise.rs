//! Actors that survive their own panics.
//!
//! A panic in a handler closes an actor's mailbox for good, so what is supervised is not the actor but a way to build it:
//! when it panics, the next one gets a mailbox that is published at once (messages wait in it), a pause that doubles with
//! each panic, and a fresh state. An actor that stops itself (`ctx.stop()`) is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::dev::channel;
use actix::{Actor, Addr, Context};
use actix_rt::ArbiterHandle;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::RngExt;

/// Pause before the first restart; each further panic doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An actor that lived this long starts again with the first pause.
const STEADY: Duration = Duration::from_secs(60);

static RESTARTS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// How often actors of each name have panicked since the start.
pub fn restarts() -> BTreeMap<&'static str, u64> {
    RESTARTS.lock().clone()
}

/// The way to a supervised actor, whichever one is living now.
pub struct Supervised<A: Actor> {
    shared: Arc<Shared<A>>,
}

struct Shared<A: Actor> {
    name: &'static str,
    address: ArcSwap<Addr<A>>,
    restarts: AtomicU64,
}

impl<A: Actor> Clone for Supervised<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<A: Actor> Supervised<A> {
    /// The address at this moment. Ask again for each message: after a panic there is another.
    pub fn address(&self) -> Addr<A> {
        Addr::clone(&self.shared.address.load())
    }

    /// How often the actor panicked.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    pub fn name(&self) -> &'static str {
        self.shared.name
    }
}

/// Runs what `build` makes on an arbiter, with a mailbox of `capacity` messages, and builds it anew after a panic.
pub fn supervise<A, F>(name: &'static str, arbiter: &ArbiterHandle, capacity: usize, build: F) -> Supervised<A>
where
    A: Actor<Context = Context<A>>,
    F: Fn() -> A + Send + Sync + 'static,
{
    let (sender, mut mailbox) = channel::channel(capacity);
    let shared = Arc::new(Shared { name, address: ArcSwap::from_pointee(Addr::new(sender)), restarts: AtomicU64::new(0) });
    let supervised = Supervised { shared: shared.clone() };
    let build = Arc::new(build);
    let life = async move {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let build = build.clone();
            let actor = actix_rt::spawn(async move { Context::with_receiver(mailbox).into_future(build()).await });
            match actor.await {
                Err(error) if error.is_panic() => {}
                // It stopped itself, or the arbiter is going down.
                _ => return,
            }
            let restarts = shared.restarts.fetch_add(1, Ordering::Relaxed) + 1;
            *RESTARTS.lock().entry(name).or_default() += 1;
            if started.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.5));
            tracing::error!(actor = name, restarts, pause_ms = jittered.as_millis() as u64, "actor panicked, building it anew");
            let (sender, next) = channel::channel(capacity);
            mailbox = next;
            shared.address.store(Arc::new(Addr::new(sender)));
            actix_rt::time::sleep(jittered).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    if !arbiter.spawn(life) {
        tracing::error!(actor = name, "arbiter is gone, the actor was not started");
    }
    supervised
}

#[cfg(test)]
mod tests {
    use actix::{Handler, Message};

    use super::*;

    /// Counts what it is told since it was built.
    struct Counter {
        count: u32,
    }

    impl Actor for Counter {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "u32")]
    struct Count {
        panics: bool,
    }

    impl Handler<Count> for Counter {
        type Result = u32;

        fn handle(&mut self, count: Count, _: &mut Self::Context) -> u32 {
            assert!(!count.panics, "a panic that the test asks for");
            self.count += 1;
            self.count
        }
    }

    #[actix_rt::test]
    async fn a_panic_costs_one_message() {
        let arbiter = actix_rt::Arbiter::current();
        let actor = supervise("counter", &arbiter, 8, || Counter { count: 0 });
        assert_eq!(actor.address().send(Count { panics: false }).await, Ok(1));
        assert_eq!(actor.address().send(Count { panics: false }).await, Ok(2));
        for panics in 1..=3 {
            let before = actor.address();
            assert!(before.send(Count { panics: true }).await.is_err());
            while actor.address() == before {
                actix_rt::task::yield_now().await;
            }
            assert_eq!(actor.address().send(Count { panics: false }).await, Ok(1), "a fresh state");
            assert_eq!(actor.restarts(), panics);
        }
        assert!(restarts()["counter"] >= 3);
    }

    #[actix_rt::test]
    async fn an_actor_that_cannot_be_built_is_tried_again() {
        let arbiter = actix_rt::Arbiter::current();
        let tries = AtomicU64::new(0);
        let build = move || {
            assert!(tries.fetch_add(1, Ordering::Relaxed) > 0, "a panic that the test asks for");
            Counter { count: 0 }
        };
        let actor = supervise("counter", &arbiter, 8, build);
        while actor.restarts() == 0 {
            actix_rt::task::yield_now().await;
        }
        assert_eq!(actor.address().send(Count { panics: false }).await, Ok(1));
    }
}
