//! The servers towards clients, with a stand-in for the phase engine.

pub mod frames;
mod http1;
mod http2;
mod http2_abuse;
mod http2_frames;
mod smuggling;
mod standin;
