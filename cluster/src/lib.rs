//! The replicated configuration of a cluster of gateways: every node takes writes, keeps everything, and ends with the same.

pub mod clock;
pub mod effective;
pub mod engine;
pub mod id;
pub mod lease;
pub mod record;
pub mod repair;
pub mod replica;
pub mod wire;

/// The most nodes of a cluster.
pub const MAX_MEMBERS: usize = 64;
