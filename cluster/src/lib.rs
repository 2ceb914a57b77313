//! The replicated configuration of a cluster of gateways: every node takes writes, keeps everything, and ends with the same.

pub mod clock;
pub mod effective;
pub mod id;
pub mod record;
pub mod replica;
