//! Everything that changes over time, one actor a file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`rate_limits`] | the owner of the counters of rate limits |
//! | [`supervise`] | actors that survive their own panics |

pub mod rate_limits;
pub mod supervise;
