//! The servers towards clients, with a stand-in for the phase engine.

mod http1;
mod smuggling;
mod standin;
