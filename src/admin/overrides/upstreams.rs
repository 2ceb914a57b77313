//! `/upstreams/{u}/health`: the targets, or the balancer as a whole, as this node sees them.

use serde_json::{Value, json};

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::entities::page;
use crate::admin::health::{Address, State, TargetHealth, weights, word};
use crate::admin::overrides::targets;
use crate::admin::table::{Table, handler};
use crate::catalog::Row;

pub fn endpoints(table: &mut Table) {
    table.set("/upstreams/{upstreams}/health", "GET", handler(health));
}

async fn health(call: Call) -> Outcome {
    if call.query.is_on("balancer_health") {
        return balancer(&call);
    }
    let upstream = targets::upstream(&call)?;
    let (rows, next) = targets::newest(&call, upstream)?;
    let data: Vec<Value> = rows.iter().map(|row| target(&call, upstream, row)).collect();
    let path = format!("/upstreams/{}/health", page::escape(call.param("upstreams")));
    let mut body = json!({"data": data, "next": null, "node_id": call.context.node.id});
    if let Some((offset, link)) = targets::link(&call, &path, next) {
        body["next"] = link.into();
        body["offset"] = offset.into();
    }
    Ok(Answer::ok(&body))
}

/// A target with what the balancer knows of it.
fn target(call: &Call, upstream: &Row, row: &Row) -> Value {
    let mut body = row.object();
    let known = call.context.health.target(upstream.id, row.id);
    let idle = body.get("weight").and_then(Value::as_u64) == Some(0);
    let state = match &known {
        Some(known) if !idle => known.state,
        _ => State::ChecksOff,
    };
    let data = match &known {
        Some(known) => host(known, |a| ("health", word(a.state).into())),
        None => json!({"dns": "unknown", "nodeWeight": 0, "weight": {"total": 0, "available": 0, "unavailable": 0}, "addresses": []}),
    };
    body.insert("health".to_owned(), word(state).into());
    body.insert("data".to_owned(), data);
    Value::Object(body)
}

fn balancer(call: &Call) -> Outcome {
    let upstream = targets::upstream(call)?;
    let known = call.context.health.balancer(upstream.id);
    let (healthy, checks) = known.as_ref().map_or((false, false), |known| (known.healthy, known.checks));
    let hosts = known.map_or_else(Vec::new, |known| known.hosts);
    let health = match (checks, healthy) {
        (false, _) => State::ChecksOff,
        (true, true) => State::Healthy,
        (true, false) => State::Unhealthy,
    };
    let shown: Vec<Value> = hosts.iter().map(|h| host(h, |a| ("healthy", (a.state != State::Unhealthy).into()))).collect();
    let details = json!({
        "healthy": healthy,
        "weight": weights(hosts.iter().flat_map(|h| &h.addresses)),
        "hosts": shown,
    });
    let balancing = if healthy { State::Healthy } else { State::Unhealthy };
    let data = json!({"health": word(health), "balancer_health": word(balancing), "id": upstream.id, "details": details});
    Ok(Answer::ok(&json!({"data": data, "next": null, "node_id": call.context.node.id})))
}

/// A target's host with its addresses. `mark` is what an address shows of its health.
fn host(known: &TargetHealth, mark: impl Fn(&Address) -> (&'static str, Value)) -> Value {
    let address = |a: &Address| {
        let mut shown = json!({"ip": a.ip.to_string(), "port": a.port, "weight": a.weight});
        let (name, value) = mark(a);
        shown[name] = value;
        shown
    };
    json!({
        "host": known.host,
        "port": known.port,
        "dns": known.dns,
        "nodeWeight": known.node_weight,
        "weight": weights(known.addresses.iter()),
        "addresses": known.addresses.iter().map(address).collect::<Vec<_>>(),
    })
}
