//! Routes -> an index; request -> route. Pure.
//!
//! | module | what it holds |
//! |---|---|
//! | [`normalize`] | the path that is matched, and the one that goes upstream |
//! | [`upstream_path`] | service path + what is left of the request's path |
//! | [`pattern`] | hosts, paths and header values that routes name |
//! | [`entry`] | what a route asks of a request, and its priority |
//! | [`index`] | entries by host and path prefix |
//! | [`expressions`] | routes of the expressions flavour |

mod entry;
pub mod expressions;
mod index;
pub mod normalize;
mod pattern;
mod upstream_path;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::http::Headers;
use crate::model::{Route, Service};
use crate::plugin::Exchange;
use crate::plugin::exchange::Captures;

pub use normalize::{escape, normalize};
pub use upstream_path::{Handling, upstream_path};

/// How routes are written and which one wins (`router_flavor`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavor {
    Traditional,
    #[default]
    TraditionalCompatible,
    Expressions,
}

impl std::str::FromStr for Flavor {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "traditional" => Ok(Self::Traditional),
            "traditional_compatible" => Ok(Self::TraditionalCompatible),
            "expressions" => Ok(Self::Expressions),
            _ => Err(()),
        }
    }
}

/// What of a request decides on its route.
pub struct Query<'a> {
    pub method: &'a str,
    /// The Host header as sent, with its port.
    pub host: &'a str,
    /// Normalized and decoded.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a Headers,
    pub scheme: &'a str,
    /// Server name of the TLS handshake; `None` where there was none.
    pub sni: Option<&'a str>,
    pub tls: bool,
    pub source: SocketAddr,
    pub destination: (IpAddr, u16),
}

impl<'a> Query<'a> {
    pub fn of(x: &'a Exchange) -> Self {
        Self {
            method: x.request.method.as_str(),
            host: x.request.headers.get_str("host").unwrap_or_default(),
            path: &x.path,
            query: x.request.query(),
            headers: &x.request.headers,
            scheme: x.client.scheme,
            sni: x.client.tls.as_ref().and_then(|t| t.sni.as_deref()),
            tls: x.client.tls.is_some(),
            source: SocketAddr::new(x.client.ip, x.client.peer.port()),
            destination: (x.client.local, x.client.port),
        }
    }
}

/// A route that takes a request.
#[derive(Debug)]
pub struct Match {
    /// Place of the route in what the router was made of.
    pub index: usize,
    /// What the route's path matched, for `strip_path`.
    pub prefix: Option<String>,
    pub captures: Captures,
}

/// The routes of one configuration.
#[derive(Default)]
pub struct Router {
    expressions: expressions::Expressions,
    classic: index::Index,
}

impl Router {
    /// The router of these routes. Only routes for HTTP and gRPC take part.
    pub fn compile(routes: impl Iterator<Item = (Arc<Route>, Option<Arc<Service>>)>, flavor: Flavor) -> Self {
        let mut expressions = expressions::Builder::default();
        let mut entries = Vec::new();
        for (index, (route, _)) in routes.enumerate() {
            if !route.protocols.iter().any(|p| matches!(p.as_str(), "http" | "https" | "grpc" | "grpcs")) {
                continue;
            }
            match &route.expression {
                Some(expression) if flavor == Flavor::Expressions => {
                    if let Err(error) = expressions.add(index, route.id, route.priority, expression) {
                        tracing::error!(route = %route.id, %error, "a route whose expression cannot be read is left out");
                    }
                }
                _ => entry::expand(index, &route, flavor, &mut entries),
            }
        }
        Self { expressions: expressions.finish(), classic: index::Index::new(entries) }
    }

    /// The route for a request. An expression goes before every route that is written without one.
    pub fn find(&self, query: &Query<'_>) -> Option<Match> {
        self.expressions.find(query).or_else(|| self.classic.find(query))
    }
}

#[cfg(test)]
mod tests;
