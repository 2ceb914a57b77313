//! The replicated configuration of a cluster of gateways: every node takes writes, keeps everything, and ends with the same.

pub mod clock;
mod cluster;
pub mod effective;
pub mod engine;
pub mod id;
pub mod lease;
pub mod membership;
pub mod mesh;
pub mod record;
pub mod repair;
pub mod replica;
pub mod wire;

/// The most nodes of a cluster.
pub const MAX_MEMBERS: usize = 64;

pub use cluster::{
    Config, Ended, Handle, LeaseHandle, LeaseStats, NotAToken, Overview, StartError, Storage, Token, Traffic, WriteError, Written, start,
};
