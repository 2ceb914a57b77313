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

use ahash::AHashMap;

use crate::http::Headers;
use crate::model::Route;
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

    /// The Host header as sent, with its port.
    pub fn host(&self) -> &'a str {
        self.headers.get_str("host").unwrap_or_default()
    }
}

/// A route that takes a request.
#[derive(Debug)]
pub struct Match {
    /// Place of the route.
    pub place: usize,
    /// How many bytes at the start of the path the route's path matched, for `strip_path`.
    pub prefix: Option<usize>,
    pub captures: Captures,
}

/// The routes of one configuration. A clone costs nothing and keeps its version.
#[derive(Clone, Default)]
pub struct Router {
    expressions: expressions::Expressions,
    classic: index::Index,
}

/// Makes routers, one after the other; each costs what has changed since the last one.
pub struct Builder {
    flavor: Flavor,
    expressions: expressions::Builder,
    classic: index::Index,
    /// What stands in the index, by the place of its route.
    entries: AHashMap<usize, Vec<Arc<entry::Entry>>>,
}

impl Builder {
    pub fn new(flavor: Flavor) -> Self {
        Self { flavor, expressions: expressions::Builder::default(), classic: index::Index::default(), entries: AHashMap::new() }
    }

    /// Puts a route in its place, which is the caller's to choose, or leaves the place empty. Only routes for HTTP and gRPC
    /// take part.
    pub fn set(&mut self, place: usize, route: Option<&Route>) {
        for entry in self.entries.remove(&place).unwrap_or_default() {
            self.classic.remove(&entry);
        }
        self.expressions.remove(place);
        let served = |route: &&Route| route.protocols.iter().any(|p| matches!(p.as_str(), "http" | "https" | "grpc" | "grpcs"));
        let Some(route) = route.filter(served) else { return };
        match &route.expression {
            Some(expression) if self.flavor == Flavor::Expressions => {
                if let Err(error) = self.expressions.insert(place, route.id, route.priority, expression) {
                    tracing::error!(route = %route.id, %error, "a route whose expression cannot be read is left out");
                }
            }
            _ => {
                let mut entries = Vec::new();
                entry::expand(place, route, self.flavor, &mut entries);
                let entries: Vec<_> = entries.into_iter().map(Arc::new).collect();
                entries.iter().for_each(|entry| self.classic.insert(entry));
                self.entries.insert(place, entries);
            }
        }
    }

    /// The router of the routes that are in their places now.
    pub fn router(&mut self) -> Router {
        Router { expressions: self.expressions.made(), classic: self.classic.clone() }
    }
}

impl Router {
    /// The route for a request. An expression goes before every route that is written without one.
    pub fn find(&self, query: &Query<'_>) -> Option<Match> {
        self.expressions.find(query).or_else(|| self.classic.find(query))
    }
}

#[cfg(test)]
mod tests;
