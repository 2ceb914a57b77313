//! `/E` and `/P/{p}/E`: lists and creation.

use serde_json::json;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::entities::{Subject, input, page};
use crate::catalog::Change;

pub async fn list(call: Call, subject: Subject) -> Outcome {
    let entity = subject.entity;
    let asked = page::asked(&call)?;
    let (rows, path) = match (subject.scope(&call)?, subject.below) {
        (Some(scope), Some((parent, _))) => {
            let rows = call.catalog.children_page(entity.name, scope.field, scope.parent, &asked);
            (rows, format!("/{}/{}/{}", parent.path(), page::escape(call.param(parent.name)), entity.nested_path()))
        }
        _ => (call.catalog.page(entity.name, &asked), format!("/{}", entity.path())),
    };
    Ok(page::answer(&call, &path, &rows))
}

pub async fn create(mut call: Call, subject: Subject) -> Outcome {
    let scope = subject.scope(&call)?;
    let mut input = input::take(&mut call, subject.entity, None);
    if let Some(scope) = scope {
        input.insert(scope.field.to_owned(), json!({"id": scope.parent}));
    }
    let written = call.write(Change::Create { entity: subject.entity, input }).await?;
    Ok(Answer::json(201, &written.shown.into()))
}
