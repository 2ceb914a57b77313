//! Answers that are compared with files beside this one.

mod plugins;
mod schemas;
mod validation;
