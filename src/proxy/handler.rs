//! The line between protocol servers (HTTP/1, HTTP/2) and the phase engine.
//!
//! A server reads a request into a [`Handler::blank`] exchange, calls [`Handler::begin`] and [`Handler::respond`], then writes `exchange.response`: its head
//! as it is, its body chunk by chunk through [`Handler::filter`], and calls [`Handler::finish`] when the last byte is
//! written or the client is gone.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;

use crate::http::{Request, Response};
use crate::plugin::Exchange;
use crate::plugin::exchange::Client;

/// What answers requests: the phase engine, or a stand-in in the servers' tests.
pub trait Handler: 'static {
    /// An exchange with an empty request, to be filled.
    fn blank(&self) -> Box<Exchange>;

    /// Takes an exchange whose request has a well-formed head. The body may still be arriving.
    fn begin(&self, exchange: &mut Exchange, client: &Rc<Connection>);

    /// Runs the request to the point where `response` is ready to be written.
    fn respond(&self, exchange: &mut Exchange) -> impl Future<Output = ()>;

    /// Runs a chunk of the answer's body through the body filters; `last` comes exactly once, with the last chunk or an
    /// empty one. What is left in `chunk` is sent.
    fn filter(&self, exchange: &mut Exchange, chunk: &mut Bytes, last: bool);

    /// Runs the log phase. The memory of the exchange may come back as a blank one.
    fn finish(&self, exchange: Box<Exchange>, end: End);

    /// The answer to something that is not a request: too large, malformed, too slow. No plugin sees it.
    ///
    /// `status` may be one that nginx has for itself: 494 for a head that is too large, 497 for plain HTTP sent to a TLS port;
    /// both are answered with 400. The body is at hand, not a stream.
    fn refuse(&self, status: u16, request: Option<&Request>, client: &Rc<Connection>) -> Response;

    /// Whether the node is shutting down: answers say `Connection: close`.
    fn draining(&self) -> bool;
}

/// A client's connection, shared by its requests.
#[derive(Debug)]
pub struct Connection {
    /// `ip` is the peer's address here; the engine replaces it where the peer is trusted.
    pub client: Client,
    /// Client and server as the PROXY protocol names them, on listeners that speak it.
    pub proxied: Option<(SocketAddr, SocketAddr)>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last byte of the answer was written.
    Complete,
    /// The client went away.
    ClientGone,
    /// The upstream broke off within the body.
    UpstreamGone,
}
