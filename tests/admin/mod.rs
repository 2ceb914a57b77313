//! The Admin API, black-box over HTTP.

mod bodies;
mod client;
mod collections;
mod coverage;

mod elements;
mod node;
mod node_endpoints;
mod transport;
mod validation;
