//! `/config`: the whole configuration of a node without a database, read and replaced as one document.

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::context::Context;
use crate::admin::table::{Table, handler};

pub fn endpoints(table: &mut Table, context: &Context) {
    if !context.options.dbless {
        table.put("/config", [("GET", handler(refuse)), ("POST", handler(refuse))]);
    }
    table.accept_yaml("/config");
}

async fn refuse(_: Call) -> Outcome {
    Err(Answer::message(400, "this endpoint is only available when Kong is configured to not use a database"))
}
