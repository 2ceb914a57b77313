//! Answers that are compared with files beside this one.

mod schemas;
mod validation;
