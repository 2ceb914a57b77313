//! Integration tests: one binary, so that the gateway is linked once.

mod admin;
mod durability;
mod conformance;
mod golden;
mod proxy;
mod guide;
mod node;
mod support;
mod tidy;
