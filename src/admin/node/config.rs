//! `/config`: the whole configuration of a node without a database, read and replaced as one document.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::time::timeout;
use serde_json::{Value, json};

use crate::admin::answer::{Answer, Outcome};
use crate::admin::body::Body;
use crate::admin::call::Call;
use crate::admin::context::Context;
use crate::admin::table::{Table, handler};
use crate::catalog::{Change, Row};
use crate::declarative::{self, DeclarativeError, Document};
use crate::model::ENTITIES;

pub fn endpoints(table: &mut Table, context: &Context) {
    if context.options.dbless {
        table.put("/config", [("GET", handler(get)), ("POST", handler(post))]);
    } else {
        table.put("/config", [("GET", handler(refuse)), ("POST", handler(refuse))]);
    }
    table.accept_yaml("/config");
}

async fn refuse(_: Call) -> Outcome {
    Err(Answer::message(400, "this endpoint is only available when Kong is configured to not use a database"))
}

/// How long a document waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration as YAML text.
async fn get(call: Call) -> Outcome {
    let rows = ENTITIES.iter().flat_map(|entity| call.catalog.rows(entity.name));
    Ok(Answer::ok(&json!({"config": declarative::export(rows)})))
}

/// A document as it was sent.
enum Sent {
    Table(Value),
    /// JSON or YAML; the only form whose hash is compared.
    Text(String),
}

fn sent(body: Body) -> Option<Sent> {
    let mut table = match body {
        Body::Json(Value::Object(table)) | Body::Form(table) => table,
        Body::Yaml(text) => return Some(text).filter(|text| !text.is_empty()).map(Sent::Text),
        Body::Json(_) | Body::Absent => return None,
    };
    match table.remove("config") {
        Some(config) if !table.contains_key("_format_version") => Some(Sent::Text(match config {
            Value::String(text) => text,
            other => other.to_string(),
        })),
        Some(config) => {
            table.insert("config".to_owned(), config);
            Some(Sent::Table(Value::Object(table)))
        }
        None => Some(Sent::Table(Value::Object(table))),
    }
}

/// Replaces everything by the document, or says all that is wrong with it and changes nothing.
async fn post(mut call: Call) -> Outcome {
    let Some(sent) = sent(std::mem::take(&mut call.body)) else {
        return Err(Answer::message(400, "expected a declarative configuration"));
    };
    let context = &call.context;
    let Ok(_turn) = timeout(PATIENCE, context.loading.lock()).await else {
        return Err(Answer::message(429, "Currently loading previous configuration").header("Retry-After", "5"));
    };
    let hash = match &sent {
        Sent::Text(text) => declarative::hash(text),
        Sent::Table(table) => declarative::hash(&table.to_string()),
    };
    let unchanged = matches!(sent, Sent::Text(_)) && *context.configuration_hash.load_full() == hash;
    if unchanged && call.query.is_on("check_hash") {
        return Ok(Answer::empty(304));
    }
    let schemas = context.schemas.clone();
    let read = move || {
        let context = schemas.context();
        match sent {
            Sent::Text(text) => declarative::parse(&text, &context),
            Sent::Table(table) => declarative::load(table, &context).map(|rows| Document { rows, warnings: Vec::new() }),
        }
    };
    // A large document takes longer than a listener should be kept waiting.
    let read = actix_web::rt::task::spawn_blocking(read).await.map_err(|_| Answer::unexpected())?;
    let document = read.map_err(|error| refused(&error, call.query.is_on("flatten_errors")))?;
    for warning in &document.warnings {
        tracing::warn!(warning, "in the declarative configuration");
    }
    let shown = shown(&document.rows);
    let hash = if document.rows.is_empty() { declarative::EMPTY_HASH.to_owned() } else { hash };
    context.writer.write(Change::Replace(document.rows)).await?;
    context.configuration_hash.store(Arc::new(hash));
    Ok(Answer::raw(201, shown))
}

fn refused(error: &DeclarativeError, flat: bool) -> Answer {
    Answer::json(400, &if flat { error.flattened() } else { error.envelope() })
}

/// `{"services": {id: row}}`
fn shown(rows: &[Arc<Row>]) -> String {
    let mut by_kind: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_kind.entry(row.schema.name).or_default().push(row);
    }
    let member = |row: &&Row| format!("\"{}\":{}", row.id, row.text());
    let kind = |(kind, rows): (&str, Vec<&Row>)| {
        let members: Vec<String> = rows.iter().map(member).collect();
        format!("\"{kind}\":{{{}}}", members.join(","))
    };
    let kinds: Vec<String> = by_kind.into_iter().map(kind).collect();
    format!("{{{}}}", kinds.join(","))
}
