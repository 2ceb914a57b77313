//! Endpoints that are about the node and not about an entity, one file for each subject.

pub mod cache;
pub mod cluster;
pub mod clustering;
pub mod config;
pub mod log_level;
pub mod metrics;
pub mod root;
pub mod schemas;
pub mod status;
pub mod tags;
pub mod wasm;

use crate::admin::context::Context;
use crate::admin::table::Table;

/// All of them, for the Admin API.
pub fn endpoints(table: &mut Table, context: &Context) {
    cache::endpoints(table);
    cluster::endpoints(table, context);
    clustering::endpoints(table);
    config::endpoints(table, context);
    log_level::endpoints(table);
    metrics::endpoints(table);
    root::endpoints(table);
    schemas::endpoints(table);
    status::endpoints(table);
    tags::endpoints(table);
    wasm::endpoints(table);
}
