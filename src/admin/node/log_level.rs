//! `/debug/node/log-level`: reading and changing how much is logged, for a while.

use std::time::Duration;

use serde_json::Value;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::table::{Table, handler};
use crate::settings::value::{LogLevel, Value as _};

/// The node's log: what it writes now, and a way to change it.
pub trait LogLevels: Send + Sync {
    fn current(&self) -> LogLevel;

    /// Sets the level; after `timeout` the configured one comes back, unless there is none.
    fn set(&self, level: LogLevel, timeout: Option<Duration>);
}

/// Seconds until the configured level comes back, when the client does not say.
const DEFAULT_TIMEOUT: u64 = 60;

pub fn endpoints(table: &mut Table) {
    table.set("/debug/node/log-level", "GET", handler(get));
    for pattern in [
        "/debug/node/log-level/{log_level}",
        "/debug/cluster/log-level/{log_level}",
        "/debug/cluster/control-planes-nodes/log-level/{log_level}",
    ] {
        table.set(pattern, "PUT", handler(put));
    }
}

async fn get(call: Call) -> Outcome {
    Ok(Answer::message(200, format!("log level: {}", call.context.log_levels.current().as_str())))
}

async fn put(call: Call) -> Outcome {
    if call.context.options.dbless {
        return Err(Answer::message(405, "cannot change log level when not using a database"));
    }
    let name = call.param("log_level");
    let Ok(level) = LogLevel::read("log_level", name) else { return Err(Answer::message(400, format!("unknown log level: {name}"))) };
    let timeout = timeout(call.member("timeout"))?;
    let levels = &call.context.log_levels;
    if levels.current() == level {
        return Ok(Answer::message(200, format!("log level is already {name}")));
    }
    tracing::warn!(level = name, timeout = timeout.as_secs(), "log level changed through the Admin API");
    levels.set(level, (!timeout.is_zero()).then_some(timeout));
    Ok(Answer::message(200, "log level changed"))
}

/// The body's `timeout` in seconds; 0 keeps the level.
fn timeout(given: Option<&Value>) -> Result<Duration, Answer> {
    let seconds = match given {
        None | Some(Value::Null) => DEFAULT_TIMEOUT as f64,
        Some(Value::String(text)) => text.trim().parse().unwrap_or(f64::NAN),
        Some(other) => other.as_f64().unwrap_or(f64::NAN),
    };
    if seconds.is_nan() {
        return Err(Answer::message(400, "timeout must be a number"));
    }
    if seconds < 0.0 {
        return Err(Answer::message(400, "timeout must be greater than or equal to 0"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| Answer::message(400, "timeout is too large"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn timeouts() {
        assert_eq!(timeout(None).ok(), Some(Duration::from_secs(60)));
        assert_eq!(timeout(Some(&json!("5"))).ok(), Some(Duration::from_secs(5)));
        assert_eq!(timeout(Some(&json!(0))).ok(), Some(Duration::ZERO));
        for bad in [json!(-1), json!("x"), json!(1e300), json!([])] {
            assert_eq!(timeout(Some(&bad)).err().map(|a| a.status), Some(400), "{bad}");
        }
    }
}
