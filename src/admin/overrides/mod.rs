//! What single entities do otherwise than the generated endpoints, one file each.

mod certificates;
mod consumer_groups;
mod consumers;
mod plugins;
mod targets;
mod upstreams;

use crate::admin::table::Table;

/// Puts the overrides in the place of what was generated.
pub fn endpoints(table: &mut Table) {
    certificates::endpoints(table);
    consumer_groups::endpoints(table);
    consumers::endpoints(table);
    plugins::endpoints(table);
    targets::endpoints(table);
    upstreams::endpoints(table);
}

/// What the status listener shows of a node without a database, whose Admin API may be off.
pub fn health_endpoints(table: &mut Table) {
    targets::read_endpoints(table);
    upstreams::endpoints(table);
}
