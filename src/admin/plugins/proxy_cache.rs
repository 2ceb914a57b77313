//! `/proxy-cache`: shows and forgets kept answers.
//!
//! All configurations share one memory, as all of one `dictionary_name` do in Kong: the path of one configuration shows what
//! another has brought, too.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::{self, Call};
use crate::admin::table::{Table, handler};
use crate::model::PluginRow;
use crate::plugin::cache::{Entry, Key, Owner, Unavailable};

pub fn endpoints(table: &mut Table) {
    table.put("/proxy-cache", [("DELETE", handler(purge_all))]);
    table.put("/proxy-cache/{cache_key}", [("GET", handler(get)), ("DELETE", handler(purge))]);
    let of_plugin = "/proxy-cache/{plugin_id}/caches/{cache_key}";
    table.put(of_plugin, [("GET", handler(get_of_plugin)), ("DELETE", handler(purge_of_plugin))]);
}

async fn purge_all(call: Call) -> Outcome {
    match &call.context.cluster {
        Some(cluster) => call.note(cluster.purge(None, call.writing.wish).await?),
        None => owner(&call)?.purge_all().await.map_err(unavailable)?,
    }
    Ok(Answer::empty(204))
}

async fn get(call: Call) -> Outcome {
    let key = key(&call)?;
    let entry = owner(&call)?.find(key).await.map_err(unavailable)?;
    Ok(Answer::ok(&shown(&key, &*entry.ok_or_else(Answer::not_found)?)))
}

/// Answers what this node knows; the other nodes of a cluster forget the answer too, whether this one had it or not.
async fn purge(call: Call) -> Outcome {
    let (owner, key) = (owner(&call)?, key(&call)?);
    let was_there = match &call.context.cluster {
        Some(cluster) => {
            let was_there = owner.find(key).await.map_err(unavailable)?.is_some();
            call.note(cluster.purge(Some(&key), call.writing.wish).await?);
            was_there
        }
        None => owner.purge(key).await.map_err(unavailable)?,
    };
    if was_there { Ok(Answer::empty(204)) } else { Err(Answer::not_found()) }
}

async fn get_of_plugin(call: Call) -> Outcome {
    check_plugin(&call)?;
    get(call).await
}

async fn purge_of_plugin(call: Call) -> Outcome {
    check_plugin(&call)?;
    purge(call).await
}

fn owner(call: &Call) -> Result<Arc<dyn Owner>, Answer> {
    call.context.handles.cache_owner.get().cloned().ok_or_else(|| unavailable(Unavailable))
}

fn unavailable(error: Unavailable) -> Answer {
    tracing::error!(%error, "a question about the cache was not answered");
    Answer::unexpected()
}

/// What is no key is the key of nothing.
fn key(call: &Call) -> Result<Key, Answer> {
    Key::parse(call.param("cache_key")).ok_or_else(Answer::not_found)
}

/// The plugin of the path is a configuration of proxy-cache.
fn check_plugin(call: &Call) -> Result<(), Answer> {
    let row = call::uuid(call.param("plugin_id")).and_then(|id| call.catalog.get("plugins", &id));
    let caches = row.and_then(|row| row.typed::<PluginRow>()).is_some_and(|plugin| plugin.name == "proxy-cache");
    if caches { Ok(()) } else { Err(Answer::not_found()) }
}

/// An entry as Kong shows it. The body of the request that brought it is not kept.
fn shown(key: &Key, entry: &Entry) -> Value {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let mut headers = Map::new();
    for (name, value) in entry.headers.iter() {
        let name = String::from_utf8_lossy(name).into_owned();
        let value = text(value);
        match headers.get_mut(&name) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => drop(headers.insert(name, value)),
        }
    }
    headers.insert("X-Cache-Key".to_owned(), key.to_string().into());
    headers.insert("X-Cache-Status".to_owned(), entry.brought_by.as_str().into());
    json!({
        "status": entry.status,
        "headers": headers,
        "body": text(&entry.body),
        "body_len": entry.body.len(),
        "timestamp": entry.stored.0 / 1000,
        "ttl": entry.ttl,
        "version": 1,
        "req_body": "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::cache::entry::tests::{entry, key};

    #[test]
    fn entries_are_shown_as_in_kong() {
        let mut entry = entry("one", 5_900, 0);
        for (name, value) in [("Content-Type", "text/plain"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("Set-Cookie", "c")] {
            entry.headers.append(name, value);
        }
        let key = key(1);
        assert_eq!(
            shown(&key, &entry),
            json!({
                "status": 200,
                "headers": {
                    "Content-Type": "text/plain",
                    "Set-Cookie": ["a", "b", "c"],
                    "X-Cache-Key": "01".repeat(32),
                    "X-Cache-Status": "Miss",
                },
                "body": "one",
                "body_len": 3,
                "timestamp": 5,
                "ttl": 10,
                "version": 1,
                "req_body": "",
            })
        );
    }
}
