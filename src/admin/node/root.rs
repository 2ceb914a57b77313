//! `/`, `/endpoints`, `/timers` and `/robots.txt`: what the node says of itself.

use serde_json::{Map, Value, json};

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::context::{KONG_VERSION, TROOP_VERSION};
use crate::admin::table::{Table, handler};

pub fn endpoints(table: &mut Table) {
    table.set("/", "GET", handler(root));
    table.set("/timers", "GET", handler(timers));
    table.set("/robots.txt", "GET", handler(robots));
}

/// `/endpoints`, which needs the finished table.
pub fn list_endpoints(table: &mut Table) {
    table.set("/endpoints", "GET", handler(|_| async { Err(Answer::unexpected()) }));
    let patterns: Vec<String> = table.endpoints().into_iter().map(|e| e.pattern.clone()).collect();
    let answer = json!({"data": patterns}).to_string();
    table.set(
        "/endpoints",
        "GET",
        handler(move |_| {
            let answer = answer.clone();
            async move { Ok(Answer::raw(200, answer)) }
        }),
    );
}

async fn root(call: Call) -> Outcome {
    let node = &call.context.node;
    let available = call.context.plugins.iter().map(|p| (p.name.to_owned(), json!({"version": KONG_VERSION, "priority": p.priority})));
    let in_use: std::collections::BTreeSet<String> =
        call.catalog.rows("plugins").filter_map(|row| row.object().get("name").and_then(Value::as_str).map(str::to_owned)).collect();
    Ok(Answer::ok(&json!({
        "tagline": "Welcome to kong",
        "version": KONG_VERSION,
        "edition": "community",
        "troop_version": TROOP_VERSION,
        "hostname": node.hostname,
        "node_id": node.id,
        // Kong tells which Lua it runs on; clients show the text.
        "lua_version": "none",
        "timers": {"pending": 0, "running": 0},
        "plugins": {
            "available_on_server": available.collect::<Map<String, Value>>(),
            "enabled_in_cluster": in_use,
        },
        "configuration": node.configuration,
        "pids": {"master": std::process::id(), "workers": [std::process::id()]},
    })))
}

async fn timers(_: Call) -> Outcome {
    let counts = json!({"runs": 0, "running": 0, "pending": 0, "waiting": 0, "total": 0});
    Ok(Answer::ok(&json!({
        "worker": {"id": 0, "count": 1},
        "stats": {"sys": counts, "timers": {}, "flamegraph": {"running": "", "pending": "", "elapsed_time": ""}},
    })))
}

async fn robots(_: Call) -> Outcome {
    Ok(Answer::text(200, "text/plain", "User-agent: *\nDisallow: /"))
}
