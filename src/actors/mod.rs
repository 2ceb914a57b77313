//! Everything that changes over time, one actor a file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cache`] | the owner of kept answers |
//! | [`catalog`] | the configuration: the only writer of catalog and store |
//! | [`file_log`] | writes log records to files |
//! | [`health_checker`] | active health checks of one upstream |
//! | [`probe`] | one question to one address |
//! | [`rate_limits`] | the owner of the counters of rate limits |
//! | [`redis`] | the connections to Redis servers |
//! | [`resolver`] | looks names up, and keeps what they resolve to |
//! | [`supervise`] | actors that survive their own panics |
//! | [`upstream`] | the ring of one upstream and the names in it |
//! | [`upstreams`] | all upstreams of the node, brought to what the catalog says |

pub mod cache;
pub mod catalog;
pub mod file_log;
pub mod health_checker;
pub mod probe;
pub mod rate_limits;
pub mod redis;
pub mod resolver;
pub mod supervise;
pub mod upstream;
pub mod upstreams;
