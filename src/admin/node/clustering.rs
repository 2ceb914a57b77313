//! `/clustering`: the hybrid mode's endpoints, which only a control plane answers. Troop's nodes are all alike.

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::table::{Table, handler};

pub fn endpoints(table: &mut Table) {
    table.set("/clustering/data-planes", "GET", handler(refuse));
    table.set("/clustering/status", "GET", handler(refuse));
}

async fn refuse(_: Call) -> Outcome {
    Err(Answer::message(400, "this endpoint is only available when Kong is configured to run as Control Plane for the cluster"))
}
