//! Everything that changes over time, one actor a file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`catalog`] | the configuration: the only writer of catalog and store |
//! | [`rate_limits`] | the owner of the counters of rate limits |
//! | [`resolver`] | looks names up, and keeps what they resolve to |
//! | [`supervise`] | actors that survive their own panics |

pub mod catalog;
pub mod rate_limits;
pub mod resolver;
pub mod supervise;
