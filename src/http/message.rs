//! A request and a response.

use crate::http::{Body, Headers};

/// Protocol version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    /// As `Via` and logs write it: `1.0`, `1.1`, `2`.
    pub fn number(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// A request method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Connect,
    Trace,
    Other(Box<str>),
}

impl Method {
    pub fn parse(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "CONNECT" => Self::Connect,
            "TRACE" => Self::Trace,
            _ => Self::Other(token.into()),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Connect => "CONNECT",
            Self::Trace => "TRACE",
            Self::Other(token) => token,
        }
    }
}

/// A request as it came in; plugins may change what goes upstream.
#[derive(Debug, Default)]
pub struct Request {
    pub method: Method,
    pub version: Version,
    /// Path and query exactly as the client sent them (`/a//b?x=1`), without scheme and authority.
    pub target: String,
    pub headers: Headers,
    pub body: Body,
}

impl Request {
    /// The path as sent.
    pub fn raw_path(&self) -> &str {
        memchr::memchr(b'?', self.target.as_bytes()).map_or(self.target.as_str(), |at| &self.target[..at])
    }

    /// The query as sent, without `?`; `None` when there is no `?`.
    pub fn query(&self) -> Option<&str> {
        memchr::memchr(b'?', self.target.as_bytes()).map(|at| &self.target[at + 1..])
    }
}

/// A response.
///
/// Its framing is the server's business: a `Content-Length` among the headers is that of the body (of the body that GET
/// would have, in an answer to HEAD); without one the server counts the bytes at hand or sends chunks.
#[derive(Default)]
pub struct Response {
    pub status: u16,
    /// Reason phrase when it is not the standard one.
    pub reason: Option<Box<str>>,
    pub headers: Headers,
    pub body: Body,
    /// The upstream's connection, once it has switched protocols (status 101): bytes are passed both ways from here on.
    pub tunnel: Option<Box<dyn Tunnel>>,
}

impl Response {
    /// Says, from a header filter, that a body filter will change the body: its length is not known any more.
    pub fn body_will_change(&mut self) {
        self.headers.remove("content-length");
        self.body.forget_length();
    }
}

/// A connection that has switched protocols.
pub trait Tunnel: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Tunnel for T {}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("status", &self.status).field("headers", &self.headers).field("body", &self.body).finish()
    }
}
