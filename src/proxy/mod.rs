//! The data plane: listeners and protocols towards clients, the phase engine, the client towards upstreams.
//!
//! | module | what it holds |
//! |---|---|
//! | [`client`] | the client towards upstreams |
//! | [`deadline`] | a time limit that costs nothing to move |
//! | [`engine`] | the phase engine |
//! | [`handler`] | the line between protocol servers and the phase engine |
//! | [`server`] | servers towards clients |
//! | [`stream`] | a connection, plain or TLS |

pub mod client;
pub mod deadline;
pub mod engine;
pub mod handler;
pub mod server;
pub mod stream;
