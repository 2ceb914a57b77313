//! Rows in memory: indexes, uniqueness, foreign keys, cascades. Pure, no I/O.

pub mod row;

pub use row::Row;
