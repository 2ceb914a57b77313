//! `/status` and what stands below it.

use serde_json::{Value, json};

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::query::Query;
use crate::admin::table::{Table, handler};
use crate::admin::vitals::{Readiness, resident_memory};

pub fn endpoints(table: &mut Table) {
    table.set("/status", "GET", handler(status));
    table.set("/status/dns", "GET", handler(dns));
}

/// Endpoints of the status listener alone.
pub fn ready_endpoints(table: &mut Table) {
    table.put("/status/ready", [("GET", handler(ready)), ("POST", handler(drain))]);
}

async fn status(call: Call) -> Outcome {
    let memory = size(resident_memory(), &call.query)?;
    let sizes = call.context.handles.cache.memory.sizes();
    let [kept, capacity] = [size(sizes.bytes as u64, &call.query)?, size(sizes.budget as u64, &call.query)?];
    let vitals = &call.context.vitals;
    let connections = vitals.connections();
    let mut body = json!({
        "memory": {
            "workers_lua_vms": [{"http_allocated_gc": memory, "pid": std::process::id()}],
            "lua_shared_dicts": {"kong_db_cache": {"allocated_slabs": kept, "capacity": capacity}},
        },
        "server": {
            "connections_accepted": connections.accepted,
            "connections_handled": connections.handled,
            "connections_active": connections.active,
            "connections_reading": connections.reading,
            "connections_writing": connections.writing,
            "connections_waiting": connections.waiting,
            "total_requests": connections.requests,
        },
    });
    if call.context.options.dbless {
        body["configuration_hash"] = call.context.configuration_hash.load().as_str().into();
    } else {
        body["database"] = json!({"reachable": vitals.store_reachable()});
    }
    Ok(Answer::ok(&body))
}

/// Bytes as `unit` (b, k, m, g) with `scale` decimals show them.
fn size(bytes: u64, query: &Query) -> Result<Value, Answer> {
    let unit = query.get("unit").unwrap_or("m");
    let scale = query.get("scale").and_then(|s| s.parse::<usize>().ok()).unwrap_or(2).min(20);
    let (divisor, name) = match unit {
        "b" | "B" => return Ok(bytes.into()),
        "k" | "K" => (1024.0, "KiB"),
        "m" | "M" => (1024.0 * 1024.0, "MiB"),
        "g" | "G" => (1024.0 * 1024.0 * 1024.0, "GiB"),
        _ => return Err(Answer::message(400, format!("invalid unit '{unit}' (expected 'k/K', 'm/M', or 'g/G')"))),
    };
    Ok(format!("{:.scale$} {name}", bytes as f64 / divisor).into())
}

async fn dns(_: Call) -> Outcome {
    Err(Answer::message(501, "not implemented with the legacy DNS client"))
}

async fn ready(call: Call) -> Outcome {
    let readiness = call.context.vitals.readiness();
    Ok(Answer::message(if readiness == Readiness::Ready { 200 } else { 503 }, readiness.message()))
}

async fn drain(call: Call) -> Outcome {
    match call.member("status").and_then(Value::as_str) {
        Some("draining") => {
            call.context.vitals.drain();
            Ok(Answer::empty(204))
        }
        _ => Err(Answer::message(400, "status must be 'draining'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let shown = |query: &str| size(3 << 20, &Query::parse(query).unwrap()).map_err(|a| a.status);
        assert_eq!(shown(""), Ok(json!("3.00 MiB")));
        assert_eq!(shown("unit=k&scale=0"), Ok(json!("3072 KiB")));
        assert_eq!(shown("unit=b"), Ok(json!(3145728)));
        assert_eq!(shown("unit=t"), Err(400));
    }
}
