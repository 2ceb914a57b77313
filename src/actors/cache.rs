//! The owner of kept answers. Workers find and store them by themselves; the owner takes out what is over, a little at a time,
//! and purges for the Admin API.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use actix_rt::ArbiterHandle;

use crate::actors::supervise::{Supervised, supervise};
use crate::plugin::cache::{Answer, Cache, Entry, Key, Owner, Unavailable};
use crate::plugin::counters::Moment;

/// Messages that the mailbox holds before senders wait.
const MAILBOX: usize = 64;
/// Time between two sweeps, when the last one has found the end.
const PAUSE: Duration = Duration::from_secs(1);
/// Time until the next one, when it has not.
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// The way to the owner.
pub struct Handle {
    cache: Arc<Cache>,
    owner: Supervised<CacheOwner>,
}

impl Handle {
    /// Starts the owner of this cache.
    pub fn start(cache: Arc<Cache>, arbiter: &ArbiterHandle) -> Self {
        let owned = Arc::clone(&cache);
        let owner = supervise("cache", arbiter, MAILBOX, move || CacheOwner { cache: owned.clone() });
        Self { cache, owner }
    }
}

impl Owner for Handle {
    fn find(&self, key: Key) -> Answer<Option<Arc<Entry>>> {
        let found = self.cache.memory.peek(&key, now());
        Box::pin(std::future::ready(Ok(found)))
    }

    fn purge(&self, key: Key) -> Answer<bool> {
        let asked = self.owner.address().send(Purge(key));
        Box::pin(async { asked.await.map_err(|_| Unavailable) })
    }

    fn purge_all(&self) -> Answer<()> {
        let asked = self.owner.address().send(PurgeAll);
        Box::pin(async { asked.await.map_err(|_| Unavailable) })
    }
}

/// Forgets one answer; whether it was there.
#[derive(Message)]
#[rtype(result = "bool")]
struct Purge(Key);

/// Forgets all answers.
#[derive(Message)]
#[rtype(result = "()")]
struct PurgeAll;

struct CacheOwner {
    cache: Arc<Cache>,
}

impl CacheOwner {
    fn sweep(&mut self, context: &mut Context<Self>) {
        let pause = if self.cache.memory.sweep(now()) { SHORT_PAUSE } else { PAUSE };
        context.run_later(pause, Self::sweep);
    }
}

impl Actor for CacheOwner {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.sweep(context);
    }
}

impl Handler<Purge> for CacheOwner {
    type Result = bool;

    fn handle(&mut self, Purge(key): Purge, _: &mut Self::Context) -> bool {
        self.cache.memory.purge(&key)
    }
}

impl Handler<PurgeAll> for CacheOwner {
    type Result = ();

    fn handle(&mut self, _: PurgeAll, _: &mut Self::Context) {
        let purged = self.cache.memory.purge_all();
        // giving back the memory of many answers takes its time, and nobody needs to wait for it
        drop(actix_rt::task::spawn_blocking(move || drop(purged)));
    }
}

fn now() -> Moment {
    Moment::from(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::cache::entry::tests::{entry, key};

    fn store(cache: &Cache, n: u8, expires: u64) {
        assert!(cache.memory.store(key(n), Arc::new(entry("x", 0, expires)), cache.memory.epoch(&key(n))));
    }

    #[actix_rt::test]
    async fn the_owner_sweeps_and_purges() {
        let cache = Arc::<Cache>::default();
        store(&cache, 1, 1);
        let handle = Handle::start(Arc::clone(&cache), &actix_rt::Arbiter::current());
        for n in 2..5 {
            store(&cache, n, u64::MAX);
        }
        assert_eq!(handle.purge(key(2)).await, Ok(true));
        assert_eq!(handle.purge(key(2)).await, Ok(false));
        // what was over went when the owner started
        assert_eq!((cache.memory.sizes().entries, cache.memory.sizes().expired), (2, 1));
        assert!(handle.find(key(3)).await.unwrap().is_some());
        handle.purge_all().await.unwrap();
        assert!(handle.find(key(3)).await.unwrap().is_none());
        assert_eq!(cache.memory.sizes().entries, 0);
    }
}
