//! Gives each request an id that the upstream, the log and, if wanted, the client are told.
//!
//! An id that the client has sent is kept. Generators:
//!
//! | `generator` | id |
//! |---|---|
//! | `uuid` | a random UUID |
//! | `uuid#counter` | a UUID of the process, `#`, and a number that counts up |
//! | `tracker` | this end's address and port, process, the client's port, a number that counts up, seconds since the epoch, joined by `-` |
//!
//! # Scope
//! Global, route, service, consumer, consumer group.
//!
//! # Answers
//! None of its own; `echo_downstream` adds the header to every answer.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use schema::types::HeaderName;
use schema::{Record, Violations};
use serde::Deserialize;
use uuid::Uuid;

use crate::plugin::{Env, Exchange, Flow, Phases, Plugin};

/// What `uuid#counter` begins with, as long as the process lives.
static PROCESS: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);
static COUNTER: AtomicU64 = AtomicU64::new(0);

pub struct CorrelationId {
    config: Config,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Name of the header that holds the id.
    #[field(optional, default = "Kong-Request-ID")]
    header_name: HeaderName,
    /// How ids are made.
    #[field(default = "uuid#counter", one_of(&["uuid", "uuid#counter", "tracker"]))]
    generator: Generator,
    /// Adds the header to the answer too.
    #[field(default = false)]
    echo_downstream: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Generator {
    #[serde(rename = "uuid")]
    Uuid,
    #[serde(rename = "uuid#counter")]
    Counter,
    #[serde(rename = "tracker")]
    Tracker,
}

impl schema::FieldType for Generator {
    fn field() -> schema::Field {
        <String as schema::FieldType>::field()
    }
}

impl Generator {
    fn id(self, x: &Exchange) -> String {
        let next = || COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
        match self {
            Self::Uuid => Uuid::new_v4().to_string(),
            Self::Counter => format!("{}#{}", *PROCESS, next()),
            Self::Tracker => {
                let seconds = x.timing.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                let (client, process) = (&x.client, std::process::id());
                format!("{}-{}-{process}-{}-{}-{seconds:.3}", client.local, client.port, client.peer.port(), next())
            }
        }
    }
}

impl Plugin for CorrelationId {
    const NAME: &'static str = "correlation-id";
    const PRIORITY: i32 = 100001;
    const PHASES: Phases = Phases::ACCESS.and(Phases::HEADER_FILTER);
    type Config = Config;

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        Ok(Self { config })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let name: &str = &self.config.header_name;
        let sent = x.request.headers.get(name).filter(|value| !value.is_empty());
        let id = match sent {
            Some(value) => String::from_utf8_lossy(value).into_owned(),
            None => {
                let id = self.config.generator.id(x);
                x.request.headers.set(name, &id);
                id
            }
        };
        x.correlation_id = Some(id);
        Ok(())
    }

    fn header_filter(&self, x: &mut Exchange) {
        let name: &str = &self.config.header_name;
        if !self.config.echo_downstream {
            return;
        }
        let id = x.correlation_id.as_ref().map(|id| id.as_bytes()).or_else(|| x.request.headers.get(name));
        if let Some(id) = id {
            x.response.headers.set(name, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::json;

    use super::*;
    use crate::plugin::testing::{exchange, plugin, run, values};

    /// The id that the upstream sees, which log and client are told too.
    fn id(generator: &str, headers: &[(&str, &str)]) -> String {
        let plugin = plugin::<CorrelationId>(json!({"generator": generator, "header_name": "X-Id", "echo_downstream": true}));
        let mut x = exchange("GET", "/", headers);
        assert!(run(plugin.access(&mut x)).is_ok());
        plugin.header_filter(&mut x);
        let sent = values(&x.request.headers, "x-id");
        assert_eq!(values(&x.response.headers, "x-id"), sent);
        assert_eq!(x.correlation_id.as_ref(), sent.first());
        sent.concat()
    }

    #[test]
    fn generators() {
        assert!(Uuid::try_parse(&id("uuid", &[])).is_ok());
        let (a, b) = (id("uuid#counter", &[]), id("uuid#counter", &[("X-Id", "")]));
        let ((process, n), (same, m)) = (a.split_once('#').unwrap(), b.split_once('#').unwrap());
        assert_eq!(process, same);
        assert!(n.parse::<u64>().unwrap() < m.parse().unwrap());
        let tracker = id("tracker", &[]);
        assert!(tracker.starts_with(&format!("127.0.0.1-8000-{}-50000-", std::process::id())), "{tracker}");
    }

    #[test]
    fn the_clients_own_is_kept() {
        assert_eq!(id("uuid", &[("x-id", "mine")]), "mine");
    }

    #[test]
    fn clients_are_told_only_when_wanted() {
        let plugin = plugin::<CorrelationId>(json!({}));
        let mut x = exchange("GET", "/", &[]);
        assert!(run(plugin.access(&mut x)).is_ok());
        plugin.header_filter(&mut x);
        assert!(x.request.headers.contains("kong-request-id") && !x.response.headers.contains("kong-request-id"));
    }
}
