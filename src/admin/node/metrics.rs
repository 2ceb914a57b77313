//! `/metrics`: what the prometheus plugin gathered.

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::table::{Table, handler};

pub fn endpoints(table: &mut Table) {
    table.set("/metrics", "GET", handler(metrics));
}

async fn metrics(call: Call) -> Outcome {
    let text = call.context.vitals.metrics().ok_or_else(Answer::not_found)?;
    Ok(Answer::text(200, "text/plain; charset=UTF-8", text))
}
