//! Everything that changes over time, one actor a file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`rate_limits`] | the owner of the counters of rate limits |
//! | [`resolver`] | looks names up, and keeps what they resolve to |
//! | [`supervise`] | actors that survive their own panics |

pub mod rate_limits;
pub mod resolver;
pub mod supervise;
