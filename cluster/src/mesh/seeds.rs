//! Looking for others: the seeds' names are resolved again and again, every address is asked who it is, and whoever answers
//! is dialed from then on. A seed is only needed to be found: nodes tell each other of the rest.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::timeout;

use super::peers::meet;
use super::{HANDSHAKE, Shared, lock};
use crate::id::NodeId;

/// How often seeds are looked at while the node has found nobody, and when it has.
const EVERY_ALONE: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_secs(10);
/// The most addresses that a name stands for.
const MAX_ADDRESSES: usize = 64;

pub(super) async fn look(shared: Arc<Shared>) {
    let mut known: HashMap<SocketAddr, NodeId> = HashMap::new();
    loop {
        for seed in &shared.config.seeds {
            let addresses: Vec<SocketAddr> = match timeout(HANDSHAKE, tokio::net::lookup_host(seed.as_str())).await {
                Ok(Ok(addresses)) => addresses.take(MAX_ADDRESSES).collect(),
                Ok(Err(error)) => {
                    tracing::debug!(seed, %error, "cannot resolve a seed");
                    continue;
                }
                Err(_) => continue,
            };
            for address in addresses {
                let here = known.get(&address).is_some_and(|node| *node == shared.config.node || is_up(&shared, *node));
                if here {
                    continue;
                }
                match timeout(HANDSHAKE, shared.dial(address, true)).await {
                    Ok(Ok((_, hello))) => {
                        known.insert(address, hello.node);
                        meet(&shared, hello.node, &hello.advertise, Some(address));
                    }
                    Ok(Err(error)) => tracing::debug!(%address, %error, "nobody at a seed"),
                    Err(_) => tracing::debug!(%address, "a seed does not answer"),
                }
            }
        }
        known.retain(|_, node| *node == shared.config.node || is_up(&shared, *node));
        let alone = !lock(&shared.peers).values().any(|peer| peer.up);
        let every = if alone { EVERY_ALONE } else { EVERY };
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(every.mul_f64(jitter)).await;
    }
}

fn is_up(shared: &Shared, node: NodeId) -> bool {
    lock(&shared.peers).get(&node).is_some_and(|peer| peer.up)
}
