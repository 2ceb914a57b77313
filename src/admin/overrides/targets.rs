//! `/upstreams/{u}/targets`: newest first, one row is named by its id or its `host:port`, and its health can be set.

use std::borrow::Cow;
use std::sync::Arc;

use schema::EntityType;
use serde_json::Value;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::{self, Call};
use crate::admin::entities::{Subject, collection, element, input, page};
use crate::admin::health::{SetError, Which};
use crate::admin::table::{Table, handler};
use crate::catalog::{Change, Key, Row, Scope, WriteError};
use crate::model::{Target, Upstream};

const COLLECTION: &str = "/upstreams/{upstreams}/targets";
const ELEMENT: &str = "/upstreams/{upstreams}/targets/{targets}";

pub fn endpoints(table: &mut Table) {
    for turned_off in ["/targets", "/targets/{targets}", "/targets/{targets}/upstream"] {
        table.remove(turned_off);
    }
    read_endpoints(table);
    table.set(COLLECTION, "POST", handler(|call| collection::create(call, subject())));
    table.set(ELEMENT, "PUT", handler(update));
    table.set(ELEMENT, "PATCH", handler(update));
    table.set(ELEMENT, "DELETE", handler(delete));
    for (state, healthy) in [("healthy", true), ("unhealthy", false)] {
        table.set(&format!("{ELEMENT}/{state}"), "PUT", handler(move |call| set_health(call, healthy)));
        table.set(&format!("{ELEMENT}/{{address}}/{state}"), "PUT", handler(move |call| set_health(call, healthy)));
    }
}

/// What the status listener has too.
pub fn read_endpoints(table: &mut Table) {
    table.set(COLLECTION, "GET", handler(list));
    table.set(&format!("{COLLECTION}/all"), "GET", handler(|call| collection::list(call, subject())));
    table.set(ELEMENT, "GET", handler(get));
}

fn subject() -> Subject {
    Subject { entity: Target::entity(), below: Some((Upstream::entity(), "upstream")) }
}

/// The upstream in the path.
pub fn upstream(call: &Call) -> Result<&Arc<Row>, Answer> {
    let key = call.key(Upstream::entity())?;
    call.catalog.select("upstreams", &key, None).ok_or_else(Answer::not_found)
}

/// The targets of an upstream, newest first, and the page that `offset` and `size` ask for.
pub fn newest(call: &Call, upstream: &Row) -> Result<(Vec<Arc<Row>>, Option<usize>), Answer> {
    let size = call.query.size().map_err(Answer::from)?;
    let from = match call.query.get("offset") {
        None => 0,
        Some(text) => text.parse::<usize>().map_err(|_| WriteError::invalid_offset(text, "must be a number"))?,
    };
    let filter = call.query.tags()?;
    let rows = call.catalog.children("targets", "upstream", upstream.id).filter(|row| filter.as_ref().is_none_or(|f| f.admits(row)));
    let created = |row: &Row| row.object().get("created_at").and_then(Value::as_f64).unwrap_or_default();
    let mut rows: Vec<(f64, Arc<Row>)> = rows.map(|row| (created(row), row.clone())).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let next = from.checked_add(size).filter(|next| *next < rows.len());
    Ok((rows.into_iter().skip(from).take(size).map(|(_, row)| row).collect(), next))
}

/// The link to the page that starts at a place.
pub fn link(call: &Call, path: &str, next: Option<usize>) -> Option<(String, String)> {
    let next = next?;
    let size = call.query.get("size").map(|size| format!("&size={}", page::escape(size))).unwrap_or_default();
    Some((next.to_string(), format!("{path}?offset={next}{size}")))
}

async fn list(call: Call) -> Outcome {
    let upstream = upstream(&call)?;
    let (rows, next) = newest(&call, upstream)?;
    let path = format!("/upstreams/{}/targets", page::escape(call.param("upstreams")));
    let texts = rows.iter().map(|row| Cow::Borrowed(row.text()));
    Ok(Answer::raw(200, page::list(texts, link(&call, &path, next))))
}

/// The target in the path, among those of the upstream in the path.
fn target(call: &Call) -> Result<(&Arc<Row>, Scope), Answer> {
    let scope = Scope { field: "upstream", parent: upstream(call)?.id };
    let segment = call.param("targets");
    let select = |key: &Key| call.catalog.select("targets", key, Some(scope));
    let named = |value: String| select(&Key::Unique { field: "target", value });
    let row = match call::uuid(segment) {
        Some(id) => select(&Key::Id(id)),
        // The port may be left out where the default one was.
        None => named(segment.to_owned()).or_else(|| named(format!("{segment}:8000"))),
    };
    Ok((row.ok_or_else(Answer::not_found)?, scope))
}

async fn get(call: Call) -> Outcome {
    Ok(element::one(&call, target(&call)?.0).await)
}

async fn update(mut call: Call) -> Outcome {
    let (row, scope) = target(&call)?;
    let row = row.clone();
    let input = input::take(&mut call, Target::entity(), Some(&row));
    let change = Change::Update { entity: Target::entity(), key: Key::Id(row.id), scope: Some(scope), input };
    let written = call.write(change).await?;
    Ok(Answer::ok(&written.shown.into()))
}

async fn delete(call: Call) -> Outcome {
    let (row, scope) = target(&call)?;
    call.write(Change::Delete { entity: Target::entity(), key: Key::Id(row.id), scope: Some(scope) }).await?;
    Ok(Answer::empty(204))
}

async fn set_health(call: Call, healthy: bool) -> Outcome {
    let (row, scope) = target(&call)?;
    let address = Some(call.param("address")).filter(|a| !a.is_empty()).map(str::to_owned);
    let which = Which { upstream: scope.parent, target: row.id, address };
    match call.context.health.set(&which, healthy) {
        Ok(()) => {
            if let Some(cluster) = &call.context.cluster {
                call.note(cluster.mark(&which, healthy, call.writing.wish).await?);
            }
            Ok(Answer::empty(204))
        }
        Err(SetError::UnknownAddress) => Err(Answer::not_found()),
        Err(SetError::NoChecks) => {
            let upstream = upstream(&call)?.object();
            let name = upstream.get("name").and_then(Value::as_str).unwrap_or_default();
            Err(Answer::message(400, format!("no healthchecker found for {name}")))
        }
    }
}
