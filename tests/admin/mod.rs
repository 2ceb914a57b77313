//! The Admin API, black-box over HTTP.

mod bodies;
mod certificates;
pub mod client;
mod collections;
mod consumer_groups;
mod coverage;

mod dbless;
mod deck;
mod elements;
mod node;
mod node_endpoints;
mod plugin_endpoints;
mod running;
mod transport;
mod validation;
