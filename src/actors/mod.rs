//! Everything that changes over time, one actor a file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`supervise`] | actors that survive their own panics |

pub mod supervise;
