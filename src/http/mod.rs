//! HTTP messages as the data plane handles them: flat, in order, byte for byte.
//!
//! | module | what it holds |
//! |---|---|
//! | [`headers`] | header fields in one buffer |
//! | [`body`] | a body: nothing, bytes at hand, or a stream of chunks |
//! | [`message`] | a request and a response |
//! | [`syntax`] | which bytes may stand where |

pub mod body;
pub mod headers;
pub mod message;
pub mod syntax;

pub use body::{Body, BodyError, BodySource};
pub use headers::Headers;
pub use message::{Method, Request, Response, Tunnel, Version};
