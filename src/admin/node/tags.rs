//! `/tags` and `/tags/{tag}`: which rows have which tags.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::json;
use uuid::Uuid;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::entities::page;
use crate::admin::table::{Table, handler};
use crate::catalog::{Tagged, WriteError};
use crate::model;

pub fn endpoints(table: &mut Table) {
    table.set("/tags", "GET", handler(|call| list(call, false)));
    table.set("/tags/{tags}", "GET", handler(|call| list(call, true)));
}

async fn list(call: Call, one: bool) -> Outcome {
    let only = one.then(|| call.param("tags"));
    let from = call.query.get("offset").map(read_offset).transpose()?;
    let (lines, next) = call.catalog.tagged(only, from.as_ref(), call.query.size()?);
    let texts = lines.iter().map(|line| {
        let line = json!({"tag": &*line.tag, "entity_id": line.entity_id, "entity_name": line.entity_name});
        line.to_string().into()
    });
    let next = next.map(|line| {
        let offset = offset(&line);
        let path = only.map_or("/tags".to_owned(), |tag| format!("/tags/{}", page::escape(tag)));
        let size = call.query.get("size").map(|size| format!("&size={}", page::escape(size))).unwrap_or_default();
        let link = format!("{path}?offset={}{size}", page::escape(&offset));
        (offset, link)
    });
    Ok(Answer::raw(200, page::list(texts, next)))
}

fn offset(line: &Tagged) -> String {
    STANDARD_NO_PAD.encode(json!([&*line.tag, line.entity_id, line.entity_name]).to_string())
}

fn read_offset(text: &str) -> Result<Tagged, WriteError> {
    let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| WriteError::invalid_offset(text, "bad base64 encoding"))?;
    let line: Option<(String, Uuid, String)> = serde_json::from_slice(&bytes).ok();
    let line = line.and_then(|(tag, entity_id, name)| {
        let entity_name = model::entity(&name)?.name;
        Some(Tagged { tag: tag.into(), entity_id, entity_name })
    });
    line.ok_or_else(|| WriteError::invalid_offset(text, "bad json encoding"))
}
