//! `/schemas`: what rows may hold, and whether a body would be accepted.

use schema::describe;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::entities::input;
use crate::admin::table::{Table, handler};
use crate::catalog::WriteError;
use crate::model;

pub fn endpoints(table: &mut Table) {
    table.set("/schemas/{name}", "GET", handler(entity));
    table.set("/schemas/plugins/{name}", "GET", handler(plugin));
    table.set("/schemas/vaults/{name}", "GET", handler(vault));
    table.set(
        "/schemas/{name}/validate",
        "POST",
        handler(|call| async {
            let name = call.param("name").to_owned();
            validate(call, &name).await
        }),
    );
    for entity in ["plugins", "vaults"] {
        table.put(&format!("/schemas/{entity}/validate"), [("POST", handler(move |call| validate(call, entity)))]);
    }
}

async fn entity(call: Call) -> Outcome {
    let name = call.param("name");
    let entity = model::entity(name).ok_or_else(|| unknown_entity(name))?;
    Ok(Answer::ok(&describe::entity(entity, &call.context.schemas.context())))
}

/// What a row of a plugin has beyond the general schema of plugins.
pub async fn plugin(call: Call) -> Outcome {
    subschema(&call, "plugins", "plugin")
}

async fn vault(call: Call) -> Outcome {
    subschema(&call, "vaults", "vault")
}

fn subschema(call: &Call, entity: &str, what: &str) -> Outcome {
    let name = call.param("name");
    let own = model::entity(entity).and_then(|e| e.subschema).and_then(|s| s.choose);
    let chosen = match own {
        Some(choose) => choose(name, &call.context.schemas.context()),
        None => (call.context.schemas.choose)(entity, name),
    };
    let chosen = chosen.ok_or_else(|| Answer::message(404, format!("No {what} named '{name}'")))?;
    Ok(Answer::ok(&describe::chosen(&chosen, name)))
}

/// Whether a body would be accepted, as far as the schema alone can tell.
async fn validate(mut call: Call, name: &str) -> Outcome {
    let entity = model::entity(name).ok_or_else(|| unknown_entity(name))?;
    let mut input = input::take(&mut call, entity, None);
    if entity.ttl {
        input.remove("ttl");
    }
    schema::validate::insert(entity, input, &call.context.schemas.context()).map_err(WriteError::schema_violation)?;
    Ok(Answer::message(200, "schema validation successful"))
}

fn unknown_entity(name: &str) -> Answer {
    Answer::message(404, format!("No entity named '{name}'"))
}
