//! `/plugins/enabled` and the older path of plugins' schemas.

use serde_json::json;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::node::schemas;
use crate::admin::table::{Table, handler};

pub fn endpoints(table: &mut Table) {
    table.set("/plugins/enabled", "GET", handler(enabled));
    table.set("/plugins/schema/{name}", "GET", handler(schemas::plugin));
}

async fn enabled(call: Call) -> Outcome {
    let names: Vec<&str> = call.context.plugins.iter().map(|p| p.name).collect();
    Ok(Answer::ok(&json!({"enabled_plugins": names})))
}
