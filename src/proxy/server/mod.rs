//! Servers towards clients: listeners, TLS, HTTP/1.1, HTTP/2. They read requests strictly, hand them to a
//! [`Handler`](crate::proxy::handler::Handler) and write its answers.
//!
//! | module | what it holds |
//! |---|---|
//! | [`listener`] | sockets, and the loops that accept connections |
//! | [`connection`] | from a socket to the protocol that is spoken on it |
//! | [`proxy_protocol`] | what a load balancer in front says of the client |
//! | [`tls`] | versions, certificates |
//! | [`worker`] | what the connections of a worker share: clock, time limits, buffers, draining |
//! | [`counters`] | connections and requests, counted |
//! | [`date`] | the Date field |
//! | [`http1`] | HTTP/1.1 and 1.0 |
//! | [`http2`] | HTTP/2 |

pub mod connection;
pub mod counters;
pub mod date;
pub mod http1;
pub mod http2;
pub mod listener;
pub mod proxy_protocol;
pub mod tls;
pub mod worker;

use std::time::Duration;

pub use connection::Port;
pub use counters::{Counters, Totals};
pub use listener::Bound;
pub use worker::Worker;

/// What a client may send and how long it may take. The defaults are nginx's, where it has one.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request line and longest header field, in bytes.
    pub line: usize,
    /// Most bytes of a head.
    pub head: usize,
    /// Most header fields.
    pub fields: usize,
    /// Requests after which a connection is closed, over HTTP/2 once those under way are answered:
    /// `nginx_http_keepalive_requests`.
    pub keepalive_requests: u64,
    /// Most bytes of a body that nobody wants which are read so that the connection can be used again.
    pub discarded: u64,
    /// Streams that a client may have open at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Connections that a worker has open at a time.
    pub connections: u64,
    /// Between the first byte of a head and its last.
    pub header_timeout: Duration,
    /// Between two requests.
    pub keepalive_timeout: Duration,
    /// Between two reads of a body.
    pub body_timeout: Duration,
    /// Between two writes of an answer.
    pub send_timeout: Duration,
    /// How long bytes are read and thrown away before a connection is closed that the client still sends on.
    pub lingering_timeout: Duration,
    /// How long an idle connection stays open once the node shuts down, or once an HTTP/2 client was told to leave, for a request
    /// that is on its way.
    pub drain_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: 8 * 1024,
            head: 33 * 1024,
            fields: 1000,
            keepalive_requests: 10_000,
            discarded: 256 * 1024,
            streams: 128,
            connections: 65_536,
            header_timeout: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            lingering_timeout: Duration::from_secs(5),
            drain_grace: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// How often time limits are looked at: often enough for the shortest of them, and never more than costs nothing.
    fn tick(&self) -> Duration {
        let limits = [self.header_timeout, self.keepalive_timeout, self.body_timeout, self.send_timeout, self.lingering_timeout];
        let shortest = limits.into_iter().min().unwrap_or_default();
        (shortest / 8).clamp(Duration::from_millis(10), Duration::from_millis(500))
    }
}
