//! The immutable world that one request sees: router, plugin plans, services, look-ups. Built anew, from what has not
//! changed where it can be, whenever the configuration changes, and swapped as one pointer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`build`] | catalog -> snapshot |
//! | [`certificates`] | what clients are shown, by server name |
//! | [`plan`] | which plugin configurations run on a request |
//! | [`service`] | a service as requests use it |
//! | [`target`] | which address takes a request |
//! | [`upstream_tls`] | TLS towards upstreams |

pub mod build;
pub mod certificates;
pub mod plan;
pub mod service;
pub mod target;
pub mod upstream_tls;

use std::any::Any;
use std::sync::Arc;

use imbl::Vector;
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::model::Route;
use crate::plugin::exchange::Captures;
use crate::plugin::{Exchange, Instance, World};
use crate::router::{Flavor, Handling, Query, Router};

pub use build::{Builder, Destinations};
pub use certificates::Certificates;
pub use plan::Plan;
pub use service::{ServiceDefaults, ServiceEntry, Timeouts, client_pair};
pub use target::{Destination, Picked, Picking};
pub use upstream_tls::UpstreamTls;

/// One version of the configuration, ready for requests.
pub struct Snapshot {
    pub catalog: Arc<Catalog>,
    router: Router,
    /// By the places that the router knows.
    routes: Vector<Option<Arc<RouteEntry>>>,
    global: Arc<Plan>,
    rewriters: Vec<Instance>,
    destinations: Destinations,
    certificates: Arc<Certificates>,
}

/// A route, its service and its plugins, and what each request asks of the route, so that the route itself need not be read.
pub struct RouteEntry {
    pub route: Arc<Route>,
    pub service: Option<Arc<ServiceEntry>>,
    pub plan: Arc<Plan>,
    pub speaks: Speaks,
    pub way: Way,
    /// `request_buffering`
    pub buffers: bool,
}

impl AsRef<Route> for RouteEntry {
    fn as_ref(&self) -> &Route {
        &self.route
    }
}

/// How a route changes where a request goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    pub strip_path: bool,
    pub preserve_host: bool,
    pub handling: Handling,
}

impl Way {
    /// `path_handling` has a meaning in the traditional flavour alone.
    pub fn of(route: &Route, flavor: Flavor) -> Self {
        let handling = match (flavor, route.path_handling.as_deref()) {
            (Flavor::Traditional, Some("v1")) => Handling::V1,
            _ => Handling::V0,
        };
        Self { strip_path: route.strip_path, preserve_host: route.preserve_host, handling }
    }
}

/// The protocols of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speaks {
    pub http: bool,
    pub https: bool,
    pub grpc: bool,
    pub grpcs: bool,
}

impl Speaks {
    pub fn of(route: &Route) -> Self {
        let has = |protocol: &str| route.protocols.iter().any(|p| p == protocol);
        Self { http: has("http"), https: has("https"), grpc: has("grpc"), grpcs: has("grpcs") }
    }
}

/// A route that was found for a request.
pub struct Found<'a> {
    pub entry: &'a Arc<RouteEntry>,
    pub captures: Captures,
    /// How many bytes at the start of the request's path the route's path matched.
    pub prefix: Option<usize>,
}

impl Snapshot {
    /// The route for a request.
    pub fn find_route(&self, x: &Exchange) -> Option<Found<'_>> {
        let query = Query::of(x);
        let found = self.router.find(&query)?;
        let entry = self.routes.get(found.place)?.as_ref()?;
        Some(Found { entry, captures: found.captures, prefix: found.prefix })
    }

    /// Where a request goes: to where the service leads, unless a plugin has chosen another host.
    pub fn picking(&self, x: &Exchange, service: &ServiceEntry) -> Picking {
        let destination =
            if x.upstream.host == *service.service.host { service.destination.clone() } else { self.destinations.of(&x.upstream.host) };
        Picking::new(destination, x)
    }

    /// Certificates that clients are shown.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Plugins of requests that no route takes.
    pub fn global_plan(&self) -> &Arc<Plan> {
        &self.global
    }

    /// Global configurations of plugins that run before routing.
    pub fn rewriters(&self) -> &[Instance] {
        &self.rewriters
    }
}

impl World for Snapshot {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn find_any(&self, entity: &'static str, field: &'static str, value: &str) -> Option<Arc<dyn Any + Send + Sync>> {
        self.catalog.find(entity, field, value)?.typed_any()
    }

    fn get_any(&self, entity: &'static str, id: Uuid) -> Option<Arc<dyn Any + Send + Sync>> {
        self.catalog.get(entity, &id)?.typed_any()
    }

    fn children_any(&self, entity: &'static str, field: &'static str, parent: Uuid) -> Vec<Arc<dyn Any + Send + Sync>> {
        self.catalog.children(entity, field, parent).filter_map(|row| row.typed_any()).collect()
    }

    fn shown(&self, entity: &'static str, id: Uuid) -> Option<schema::Object> {
        Some(self.catalog.get(entity, &id)?.object())
    }

    fn logged(&self, entity: &'static str, id: Uuid) -> Option<&serde_json::value::RawValue> {
        Some(self.catalog.get(entity, &id)?.logged())
    }
}

#[cfg(test)]
mod tests;
