//! `/E/{id}` and `/P/{p}/E/{id}`: one row.

use serde_json::{Value, json};

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::entities::{Subject, input, page};
use crate::admin::node::cluster::history;
use crate::catalog::{Change, Row};

pub async fn get(call: Call, subject: Subject) -> Outcome {
    let (key, scope) = (subject.key(&call)?, subject.scope(&call)?);
    let row = call.catalog.select(subject.entity.name, &key, scope).ok_or_else(Answer::not_found)?;
    Ok(one(&call, row).await)
}

/// A row by itself: with what it lost to others, where a cluster knows of something.
pub async fn one(call: &Call, row: &Row) -> Answer {
    let text = page::text(&call.catalog, row).into_owned();
    let Some(cluster) = &call.context.cluster else { return Answer::raw(200, text) };
    let conflict = history::of_entity(cluster, row.schema, row.id).await;
    match (conflict, serde_json::from_str::<Value>(&text)) {
        (Some(conflict), Ok(Value::Object(mut shown))) => {
            shown.insert(input::CONFLICT.to_owned(), conflict);
            Answer::ok(&shown.into())
        }
        _ => Answer::raw(200, text),
    }
}

/// Replaces the row or makes it.
pub async fn put(mut call: Call, subject: Subject) -> Outcome {
    let (key, scope) = (subject.key(&call)?, subject.scope(&call)?);
    let mut input = input::take(&mut call, subject.entity, None);
    if let Some(scope) = scope {
        input.insert(scope.field.to_owned(), json!({"id": scope.parent}));
    }
    let written = call.write(Change::Upsert { entity: subject.entity, key, scope, input }).await?;
    Ok(Answer::ok(&written.shown.into()))
}

/// Changes what the body names.
pub async fn patch(mut call: Call, subject: Subject) -> Outcome {
    let (key, scope) = (subject.key(&call)?, subject.scope(&call)?);
    let catalog = call.catalog.clone();
    let row = catalog.select(subject.entity.name, &key, scope);
    if scope.is_some() && row.is_none() {
        return Err(Answer::not_found());
    }
    let input = input::take(&mut call, subject.entity, row.map(|row| &**row));
    let written = call.write(Change::Update { entity: subject.entity, key, scope, input }).await?;
    Ok(Answer::ok(&written.shown.into()))
}

pub async fn delete(call: Call, subject: Subject) -> Outcome {
    let (key, scope) = (subject.key(&call)?, subject.scope(&call)?);
    if scope.is_some() && call.catalog.select(subject.entity.name, &key, scope).is_none() {
        return Err(Answer::not_found());
    }
    call.write(Change::Delete { entity: subject.entity, key, scope }).await?;
    Ok(Answer::empty(204))
}
