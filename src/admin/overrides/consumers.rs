//! `/consumers?custom_id=x`: the one consumer with this custom id.

use std::borrow::Cow;

use schema::EntityType;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::entities::{Subject, collection, page};
use crate::admin::table::{Table, handler};
use crate::model::Consumer;

pub fn endpoints(table: &mut Table) {
    table.set("/consumers", "GET", handler(list));
}

async fn list(call: Call) -> Outcome {
    let mut asked = call.query.all("custom_id");
    let Some(custom_id) = asked.next() else {
        drop(asked);
        return collection::list(call, Subject { entity: Consumer::entity(), below: None }).await;
    };
    if custom_id.is_empty() || asked.next().is_some() {
        return Err(Answer::message(400, "custom_id must be an unempty string"));
    }
    let found = call.catalog.find("consumers", "custom_id", custom_id);
    Ok(Answer::raw(200, page::list(found.into_iter().map(|row| Cow::Borrowed(row.text())), None)))
}
