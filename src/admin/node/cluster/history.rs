//! The versions of records: which one counts, whether it is in effect and why not, and what lost. Bodies are shown as the
//! endpoints of their entities show them.

use cluster::WriteError;
use cluster::engine::{Refusal, Standing};
use cluster::id::Key;
use cluster::record::Record;
use cluster::replica::{Conflict, Reason};
use schema::{EntitySchema, Object};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{cluster, ended};
use crate::actors::replication::{Replication, is_command};
use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::catalog::row;

/// `GET /cluster/history/{kind}/{id}`
pub async fn of_record(call: Call) -> Outcome {
    let standing = cluster(&call)?.handle().standing(key(&call)).await.map_err(ended)?;
    let mut versions = Vec::new();
    if let Some(record) = &standing.record {
        let reasons = reasons(&standing);
        let mut shown = version(record);
        shown["current"] = true.into();
        shown["effective"] = is_effective(&standing).into();
        shown["reasons"] = reasons.into();
        versions.push(shown);
    }
    for (conflict, settled) in standing.losers.iter().rev() {
        let mut shown = version(&conflict.record);
        shown["current"] = false.into();
        shown["effective"] = false.into();
        shown["reasons"] = json!([reason(conflict)]);
        shown["settled"] = (*settled).into();
        versions.push(shown);
    }
    if versions.is_empty() {
        return Err(Answer::not_found());
    }
    Ok(Answer::ok(&json!({"kind": &*standing.key.kind, "id": &*standing.key.id, "versions": versions})))
}

/// `GET /cluster/conflicts`: what lost on account of others and was not set right since.
pub async fn conflicts(call: Call) -> Outcome {
    let standings = cluster(&call)?.handle().conflicts().await.map_err(ended)?;
    let mut data = Vec::new();
    for standing in standings.iter().filter(|standing| !is_command(&standing.key)) {
        for (conflict, _) in standing.losers.iter().filter(|(_, settled)| !settled) {
            data.push(entry(&standing.key, Some(&conflict.record), reason(conflict)));
        }
        for reason in lost(standing) {
            data.push(entry(&standing.key, standing.record.as_ref(), &reason));
        }
    }
    Ok(Answer::ok(&json!({"data": data})))
}

/// `GET /cluster/quarantine`
pub async fn quarantine(call: Call) -> Outcome {
    let standings = cluster(&call)?.handle().quarantine().await.map_err(ended)?;
    let shown = |standing: &Standing| entry(&standing.key, standing.record.as_ref(), QUARANTINED);
    Ok(Answer::ok(&json!({"data": standings.iter().map(shown).collect::<Vec<_>>()})))
}

/// `DELETE /cluster/quarantine/{kind}/{id}`
pub async fn release(call: Call) -> Outcome {
    match cluster(&call)?.handle().release(key(&call)).await {
        Ok(()) => Ok(Answer::empty(204)),
        Err(WriteError::Refused(Refusal::Unknown)) => Err(Answer::not_found()),
        Err(error) => Err(ended(error)),
    }
}

/// What an entity's own endpoint shows of a conflict that it has; nothing for nearly all entities.
pub async fn of_entity(cluster: &Replication, entity: &EntitySchema, id: Uuid) -> Option<Value> {
    let standing = cluster.standing(Key::new(entity.name, id.to_string())).await?;
    let open = standing.losers.iter().filter(|(_, settled)| !settled).map(|(conflict, _)| reason(conflict).to_owned());
    let reasons: Vec<String> = lost(&standing).into_iter().chain(open).collect();
    (!reasons.is_empty()).then(|| json!({"reasons": reasons, "history": format!("/cluster/history/{}/{id}", entity.name)}))
}

const QUARANTINED: &str = "it ended this node twice, which leaves it out";

fn key(call: &Call) -> Key {
    Key::new(call.param("kind"), call.param("id"))
}

/// Whether it is in effect on this node.
fn is_effective(standing: &Standing) -> bool {
    let over = standing.record.as_ref().and_then(end).is_some_and(|end| end <= row::now());
    standing.effective && !standing.quarantined && standing.unusable.is_none() && !over
}

/// What keeps a record out of effect, or part of it.
fn reasons(standing: &Standing) -> Vec<String> {
    let mut reasons = lost(standing);
    let record = standing.record.as_ref();
    if record.is_some_and(|record| !record.is_alive()) {
        reasons.push("it is deleted".to_owned());
    }
    if record.and_then(end).is_some_and(|end| end <= row::now()) {
        reasons.push("its time is over".to_owned());
    }
    if standing.quarantined {
        reasons.push(QUARANTINED.to_owned());
    }
    reasons.extend(standing.unusable.iter().map(|reason| format!("this node cannot use it: {reason}")));
    reasons
}

/// What a record lost on account of others. Values are not named: they may be secrets.
fn lost(standing: &Standing) -> Vec<String> {
    let missing = standing.missing.iter().map(|parent| format!("{parent}, which it refers to, is not in effect"));
    let values = standing.lost.iter().map(|(field, owner)| {
        let field = field.split_once('.').map_or(&**field, |(_, field)| field);
        match standing.effective {
            true => format!("in effect without its {field}, to which {owner} has the older claim"),
            false => format!("{owner} has the older claim to its {field}"),
        }
    });
    missing.chain(values).collect()
}

fn reason(conflict: &Conflict) -> &'static str {
    match conflict.reason {
        Reason::Concurrent => "another edit made at the same time won",
        Reason::TooOld => "it is from before the deletions that are remembered",
    }
}

/// The text of a body, and when the row ends, in milliseconds since the epoch.
fn parts(record: &Record) -> Option<(&str, Option<u64>)> {
    let body = record.body.as_ref()?.text()?;
    Some(match body.split_once('\n') {
        Some((body, end)) => (body, end.parse().ok()),
        None => (body, None),
    })
}

fn end(record: &Record) -> Option<u64> {
    parts(record)?.1
}

fn body(record: &Record) -> Option<Object> {
    serde_json::from_str(parts(record)?.0).ok()
}

fn version(record: &Record) -> Value {
    let stamp = record.version.stamp;
    json!({
        "at": stamp.millis(),
        "stamp": stamp.to_string(),
        "node": stamp.node.to_string(),
        "life": record.version.life,
        "alive": record.is_alive(),
        "ends_at": end(record),
        "body": body(record),
    })
}

fn entry(key: &Key, record: Option<&Record>, reason: &str) -> Value {
    let stamp = record.map(|record| record.version.stamp);
    json!({
        "kind": &*key.kind,
        "id": &*key.id,
        "reason": reason,
        "at": stamp.map(|stamp| stamp.millis()),
        "stamp": stamp.map(|stamp| stamp.to_string()),
        "node": stamp.map(|stamp| stamp.node.to_string()),
        "body": record.and_then(body),
    })
}
