//! `/cache`: what Kong's nodes keep in front of their database. Here every row is in memory, so a cached thing is a row, under
//! the key that Kong gives it: `keyauth_credentials:the-key:::::`.

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::{self, Call};
use crate::admin::entities::page;
use crate::admin::table::{Table, handler};
use crate::catalog::Row;
use crate::model;

pub fn endpoints(table: &mut Table) {
    table.put("/cache", [("DELETE", handler(purge))]);
    table.put("/cache/{key}", [("GET", handler(get)), ("DELETE", handler(purge))]);
}

async fn get(call: Call) -> Outcome {
    let row = row(&call).ok_or_else(Answer::not_found)?;
    Ok(Answer::raw(200, page::text(&call.catalog, row).into_owned()))
}

fn row(call: &Call) -> Option<&Row> {
    let mut parts = call.param("key").split(':');
    let entity = model::entity(parts.next()?)?;
    let value = parts.next()?;
    let row = match call::uuid(value) {
        Some(id) => call.catalog.get(entity.name, &id),
        None => call.catalog.find(entity.name, entity.endpoint_key.or(entity.cache_key.first().copied())?, value),
    };
    row.map(|row| &**row)
}

/// There is no copy that could be stale.
async fn purge(_: Call) -> Outcome {
    Ok(Answer::empty(204))
}
