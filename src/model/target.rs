//! Targets: the addresses of an upstream.

use schema::host::HostPort;
use schema::types::{Id, Parent, Tags};
use schema::{Entity, Object, Value, Violations};
use serde::Deserialize;

/// One address of an upstream.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(
    name = "targets",
    endpoint_key = "target",
    cache_key = &["upstream", "target"],
    transform(&["target"], add_port),
)]
pub struct Target {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: f64,
    #[field(auto, timestamp)]
    pub updated_at: f64,
    /// The unique identifier or the name of the upstream for which to update the target.
    #[field(parent("upstreams"), cascade)]
    pub upstream: Parent,
    /// The target address (ip or hostname) and port.
    #[field(check("target", check_target))]
    pub target: String,
    /// The weight this target gets within the upstream loadbalancer (0-65535).
    #[field(default = 100, between(0, 65535))]
    pub weight: Option<u32>,
    pub tags: Option<Tags>,
}

const DEFAULT_PORT: u16 = 8000;

fn check_target(value: &Value) -> Result<(), String> {
    let target = value.as_str().unwrap_or_default();
    HostPort::parse(target).map(drop).map_err(|_| format!("Invalid target ('{target}'); not a valid hostname or ip address"))
}

/// Targets are stored as `host:port`.
fn add_port(row: &mut Object) -> Result<(), Violations> {
    if let Some(Value::String(target)) = row.get_mut("target")
        && let Ok(parsed) = HostPort::parse(target)
    {
        *target = parsed.with_port(DEFAULT_PORT);
    }
    Ok(())
}
