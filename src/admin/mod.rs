//! The Admin API: Kong's endpoints over the entities of the model, and the status listener.
//!
//! Endpoints of entities are generated from [`crate::model::ENTITIES`]; what an entity does otherwise stands in one file of
//! `overrides/`. Nothing here writes: a change goes to the catalog's actor, and what is read is one immutable catalog.
//!
//! | module | what it holds |
//! |---|---|
//! | [`server`] | the listeners |
//! | [`transport`] | a request in, an answer out: headers, CORS, limits, methods |
//! | [`access_log`] | a line in a file for each request |
//! | [`table`] | paths to handlers |
//! | [`call`] | one call, as handlers see it |
//! | [`answer`] | what handlers answer |
//! | [`body`], [`args`], [`multipart`], [`query`] | decoding |
//! | [`entities`] | the generated endpoints |
//! | [`overrides`] | what single entities do otherwise |
//! | [`plugins`] | endpoints that plugins bring along |
//! | [`node`] | endpoints that are about the node |
//! | [`health`], [`vitals`] | what is asked of the balancers and of the running node |
//! | [`context`] | the node, as endpoints see it |

pub mod access_log;
pub mod answer;
pub mod args;
pub mod body;
pub mod call;
pub mod context;
pub mod entities;
pub mod health;
pub mod multipart;
pub mod node;
pub mod overrides;
pub mod plugins;
pub mod query;
pub mod server;
pub mod table;
pub mod transport;
pub mod vitals;

pub use context::Context;
