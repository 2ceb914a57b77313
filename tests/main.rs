//! Integration tests: one binary, so that the gateway is linked once.

#![allow(clippy::disallowed_methods, reason = "servers that tests start run on threads of their own")]

mod admin;
mod cluster;
mod conformance;
mod deployment;
mod documents;
mod durability;
mod golden;
mod guide;
mod node;
mod plugins;
mod proxy;
mod support;
mod tidy;
