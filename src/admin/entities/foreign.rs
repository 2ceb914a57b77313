//! `/E/{id}/f`: the parent that a foreign key of a row names.

use schema::EntitySchema;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::entities::{Subject, element, input, page};
use crate::catalog::{Change, Key};

/// The row in the path, and its parent's id when it has one.
struct Link {
    child: Uuid,
    parent: Option<Uuid>,
    kind: &'static EntitySchema,
    field: &'static str,
}

impl Link {
    fn of(call: &Call, subject: Subject) -> Result<Self, Answer> {
        let Some((kind, field)) = subject.below else { return Err(Answer::not_found()) };
        let key = call.key(subject.entity)?;
        let row = call.catalog.select(subject.entity.name, &key, None).ok_or_else(Answer::not_found)?;
        let body = row.object();
        let parent = body.get(field).and_then(|p| p.get("id")).and_then(Value::as_str).and_then(|id| id.parse().ok());
        Ok(Self { child: row.id, parent, kind, field })
    }
}

pub async fn get(call: Call, subject: Subject) -> Outcome {
    let link = Link::of(&call, subject)?;
    let row = link.parent.and_then(|id| call.catalog.get(link.kind.name, &id)).ok_or_else(Answer::not_found)?;
    Ok(element::one(&call, row).await)
}

/// Replaces the parent; a row without one gets a new one.
pub async fn put(mut call: Call, subject: Subject) -> Outcome {
    let link = Link::of(&call, subject)?;
    let input = input::take(&mut call, link.kind, None);
    let id = link.parent.unwrap_or_else(Uuid::new_v4);
    let parent = Change::Upsert { entity: link.kind, key: Key::Id(id), scope: None, input };
    if link.parent.is_some() {
        let written = call.write(parent).await?;
        return Ok(Answer::ok(&written.shown.into()));
    }
    let tie = Change::Update {
        entity: subject.entity,
        key: Key::Id(link.child),
        scope: None,
        input: schema::Object::from_iter([(link.field.to_owned(), json!({"id": id}))]),
    };
    call.write(Change::All(vec![parent, tie])).await?;
    let catalog = call.context.catalog.load_full();
    let row = catalog.get(link.kind.name, &id).ok_or_else(Answer::not_found)?;
    Ok(Answer::raw(200, page::text(&catalog, row).into_owned()))
}

pub async fn patch(mut call: Call, subject: Subject) -> Outcome {
    let link = Link::of(&call, subject)?;
    let catalog = call.catalog.clone();
    let row = link.parent.and_then(|id| catalog.get(link.kind.name, &id)).ok_or_else(Answer::not_found)?;
    let input = input::take(&mut call, link.kind, Some(row));
    let change = Change::Update { entity: link.kind, key: Key::Id(row.id), scope: None, input };
    let written = call.write(change).await?;
    Ok(Answer::ok(&written.shown.into()))
}
