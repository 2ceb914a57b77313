//! A panic in a plugin costs one request, never a worker.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;
use parking_lot::Mutex;

use crate::plugin::{Flow, Reply};

static COUNTS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// How often each plugin has panicked since the start.
pub fn counts() -> BTreeMap<&'static str, u64> {
    COUNTS.lock().clone()
}

/// Runs a hook that may answer; its panic becomes a 500.
pub async fn guard(plugin: &'static str, hook: impl Future<Output = Flow>) -> Flow {
    match AssertUnwindSafe(hook).catch_unwind().await {
        Ok(flow) => flow,
        Err(_) => {
            count(plugin);
            Err(Reply::status(500))
        }
    }
}

/// Runs a hook that cannot answer; after its panic the request goes on without it.
pub fn guard_sync(plugin: &'static str, hook: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        count(plugin);
    }
}

fn count(plugin: &'static str) {
    *COUNTS.lock().entry(plugin).or_default() += 1;
    tracing::error!(plugin, "a plugin panicked; this is a defect of the plugin");
}

#[cfg(test)]
mod tests {
    use super::{counts, guard, guard_sync};

    #[actix_rt::test]
    async fn a_panic_becomes_an_answer_and_is_counted() {
        let flow = guard("broken", async { panic!("on purpose") }).await;
        assert_eq!(flow.expect_err("an answer").status, 500);
        guard_sync("broken", || panic!("on purpose"));
        assert_eq!(counts().get("broken"), Some(&2));
        assert!(guard("sound", async { Ok(()) }).await.is_ok());
        assert_eq!(counts().get("sound"), None);
    }
}
