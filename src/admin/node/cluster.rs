//! `/cluster`: how the cluster stands. Only nodes with `cluster = on` have these endpoints.

pub mod history;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster::WriteError;
use cluster::engine::{PeerStatus, Refusal, State};
use cluster::id::NodeId;
use serde_json::{Value, json};

use crate::actors::replication::Replication;
use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::context::{Context, TROOP_VERSION};
use crate::admin::table::{Table, handler};

/// How long a barrier is waited for, unless `timeout` says otherwise, and the longest that it may say. Seconds.
const BARRIER: f64 = 10.0;
const LONGEST: f64 = 300.0;

pub fn endpoints(table: &mut Table, context: &Context) {
    if context.cluster.is_none() {
        return;
    }
    table.set("/cluster/status", "GET", handler(status));
    table.set("/cluster/barrier", "POST", handler(barrier));
    table.set("/cluster/conflicts", "GET", handler(history::conflicts));
    table.set("/cluster/history/{kind}/{id}", "GET", handler(history::of_record));
    table.set("/cluster/quarantine", "GET", handler(history::quarantine));
    table.set("/cluster/quarantine/{kind}/{id}", "DELETE", handler(history::release));
    table.set("/cluster/nodes/{node}", "DELETE", handler(forget));
}

fn cluster(call: &Call) -> Result<Arc<Replication>, Answer> {
    call.context.cluster.clone().ok_or_else(Answer::not_found)
}

fn ended<E: std::fmt::Display>(error: E) -> Answer {
    Answer::message(503, error.to_string())
}

async fn status(call: Call) -> Outcome {
    let cluster = cluster(&call)?;
    let overview = cluster.status().await.map_err(ended)?;
    let (own, status) = (overview.node, &overview.status);
    let mut all: BTreeSet<NodeId> = status.members.iter().chain(overview.alive.keys()).copied().collect();
    all.extend(status.peers.iter().filter(|peer| peer.live).map(|peer| peer.node));
    all.insert(own);
    let mut nodes = Vec::with_capacity(all.len());
    for node in all {
        let member = overview.alive.get(&node);
        let peer = status.peers.iter().find(|peer| peer.node == node);
        let name = match member {
            Some(member) => Some(member.name.clone()),
            None => cluster.name_of(node).await,
        };
        let mut shown = json!({
            "id": node.to_string(),
            "name": name,
            "self": node == own,
            "member": status.members.contains(&node),
            "address": member.map(|member| &member.advertise),
            "version": member.map(|member| &member.version),
        });
        if node == own {
            shown["version"] = TROOP_VERSION.into();
            extend(&mut shown, true, Some(State { ready: status.ready, digest: status.digest }), None, Some(-status.clock_offset));
            let unstored = overview.unstored.as_ref().map(|reason| format!("changes cannot be stored: {reason}"));
            let bad = || status.bad.first().map(|(key, reason)| format!("{key}: {reason}"));
            let overloaded = || status.overloaded.then(|| "changes of other nodes found too many waiting, repair brings them".to_owned());
            let troubles = || overview.troubles.get(&node).cloned();
            shown["last_error"] = unstored.or_else(bad).or_else(overloaded).or_else(troubles).into();
        } else {
            let state = peer.and_then(|peer| peer.state).or_else(|| member.and_then(|member| member.state));
            extend(
                &mut shown,
                member.is_some() && peer.is_some_and(|peer| peer.live),
                state,
                peer,
                peer.and_then(|peer| peer.clock_offset),
            );
            let slow = "it acknowledges too slowly: changes were not pushed to it, repair brings them";
            let skipped = peer.filter(|peer| peer.skipped).map(|_| slow.to_owned());
            shown["last_error"] = overview.troubles.get(&node).cloned().or(skipped).into();
        }
        nodes.push(shown);
    }
    let bad = status.bad.iter().map(|(key, reason)| json!({"kind": &*key.kind, "id": &*key.id, "reason": reason}));
    let quarantined = status.quarantined.iter().map(|key| json!({"kind": &*key.kind, "id": &*key.id}));
    Ok(Answer::ok(&json!({
        "nodes": nodes,
        "accepts_writes": status.accepts_writes,
        "repairing": status.repairing.map(|node| node.to_string()),
        "records": status.digest.count,
        "queued": status.queued,
        "conflicts": status.conflicts,
        "bad": bad.collect::<Vec<_>>(),
        "quarantined": quarantined.collect::<Vec<_>>(),
    })))
}

/// What is known of a node at this moment. Times are milliseconds.
fn extend(shown: &mut Value, alive: bool, state: Option<State>, peer: Option<&PeerStatus>, offset: Option<i64>) {
    shown["alive"] = alive.into();
    shown["ready"] = (alive && state.is_some_and(|state| state.ready)).into();
    shown["digest"] = state.map(|state| format!("{:032x}", state.digest.root)).into();
    shown["lag"] = peer.map_or(0, |peer| peer.differs_for.unwrap_or(0)).into();
    shown["clock_offset_ms"] = offset.into();
}

async fn barrier(call: Call) -> Outcome {
    let cluster = cluster(&call)?;
    let stated = call.query.get("timeout").map(str::parse::<f64>);
    let seconds = match stated {
        None => BARRIER,
        Some(Ok(seconds)) if (0.0..=LONGEST).contains(&seconds) => seconds,
        Some(_) => return Err(Answer::message(400, "timeout: expected seconds, at most 300")),
    };
    let missing = cluster.handle().barrier(Duration::from_secs_f64(seconds)).await.map_err(ended)?;
    let missing: Vec<String> = missing.iter().map(NodeId::to_string).collect();
    Ok(Answer::json(if missing.is_empty() { 200 } else { 504 }, &json!({"reached": missing.is_empty(), "missing": missing})))
}

async fn forget(call: Call) -> Outcome {
    let cluster = cluster(&call)?;
    let node: NodeId = call.param("node").parse().map_err(|_| Answer::message(400, "expected the id of a node"))?;
    match cluster.forget(node).await {
        Ok(()) => Ok(Answer::empty(204)),
        Err(WriteError::Refused(Refusal::Unknown)) => Err(Answer::not_found()),
        Err(WriteError::Refused(refusal @ Refusal::Alive)) => Err(Answer::message(409, refusal.to_string())),
        Err(error) => Err(ended(error)),
    }
}
