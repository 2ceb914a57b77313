//! Plugins in whole nodes, with the servers that they need.

mod redis;
