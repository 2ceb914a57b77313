//! What the node writes about itself: lines on the terminal, at a level that can be changed while it runs.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::admin::node::log_level::LogLevels;
use crate::settings::value::LogLevel;

/// The log of this process.
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    state: Mutex<State>,
    /// Counts changes, so that only the last one's time-out brings the configured level back.
    changes: AtomicU64,
}

struct State {
    configured: LogLevel,
    current: LogLevel,
}

static LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// Starts logging to the terminal; later calls only set the level.
pub fn start(level: LogLevel) -> Arc<Log> {
    let log = LOG.get_or_init(|| {
        let (filter, handle) = reload::Layer::new(filter(level));
        let lines =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
        // another subscriber (of a test) stays
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        let state = Mutex::new(State { configured: level, current: level });
        Arc::new(Log { filter: handle, state, changes: AtomicU64::new(0) })
    });
    log.configure(level);
    Arc::clone(log)
}

/// Kong's eight levels on the five that there are. What the server under the Admin API says of itself is for `debug`; what the h2
/// crate says of frames is left out: any client could fill the log with its warnings, and the proxy says itself why a connection
/// ends.
fn filter(level: LogLevel) -> Targets {
    let (level, of_server) = match level {
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::DEBUG),
        LogLevel::Info | LogLevel::Notice => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Error | LogLevel::Crit | LogLevel::Alert | LogLevel::Emerg => (LevelFilter::ERROR, LevelFilter::ERROR),
    };
    Targets::new().with_default(level).with_target("actix_server", of_server).with_target("h2", LevelFilter::ERROR)
}

impl Log {
    /// Sets the level that the settings say.
    pub fn configure(&self, level: LogLevel) {
        self.state.lock().configured = level;
        self.apply(level);
    }

    fn apply(&self, level: LogLevel) {
        self.state.lock().current = level;
        if let Err(error) = self.filter.reload(filter(level)) {
            tracing::warn!(%error, "the log level could not be changed");
        }
    }
}

impl LogLevels for Log {
    fn current(&self) -> LogLevel {
        self.state.lock().current
    }

    fn set(&self, level: LogLevel, timeout: Option<Duration>) {
        let change = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        self.apply(level);
        let (Some(timeout), Some(log)) = (timeout, LOG.get().cloned()) else { return };
        actix_rt::spawn(async move {
            tokio::time::sleep(timeout).await;
            if log.changes.load(Ordering::Relaxed) == change {
                let configured = log.state.lock().configured;
                log.apply(configured);
            }
        });
    }
}
