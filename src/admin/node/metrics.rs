//! `/metrics`: what the node counts, in Prometheus' text format.

use std::sync::Arc;

use actix_web::web;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::table::{Table, handler};

pub fn endpoints(table: &mut Table) {
    table.set("/metrics", "GET", handler(metrics));
}

async fn metrics(call: Call) -> Outcome {
    // thousands of label sets take their time, which this thread does not have
    let vitals = Arc::clone(&call.context.vitals);
    let gathered = web::block(move || vitals.metrics()).await.map_err(|error| {
        tracing::error!(%error, "metrics could not be gathered");
        Answer::unexpected()
    })?;
    let text = gathered.ok_or_else(Answer::not_found)?;
    Ok(Answer::text(200, "text/plain; charset=UTF-8", text))
}
