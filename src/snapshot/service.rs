//! A service as requests use it: where it is, how TLS is spoken with it, how long it may take.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::catalog::Catalog;
use crate::catalog::vault::{Vaults, is_reference};
use crate::model::Service;
use crate::plugin::Exchange;
use crate::router::upstream_path;
use crate::snapshot::Way;
use crate::snapshot::target::{Destination, Picked};
use crate::snapshot::upstream_tls::{InUse, Terms, UpstreamTls};

/// A service, ready for requests.
pub struct ServiceEntry {
    pub service: Arc<Service>,
    pub timeouts: Timeouts,
    /// Further tries after the first.
    pub retries: u32,
    /// Where the service's own host leads.
    pub destination: Destination,
    /// The Host header for it, where no target asks for another.
    host_header: Box<str>,
    tls: Option<Arc<UpstreamTls>>,
}

/// Time limits of a request, each between two successive operations.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    pub write: Duration,
    pub read: Duration,
}

/// What the node's settings say where a service says nothing.
#[derive(Clone, Debug, Default)]
pub struct ServiceDefaults {
    /// `nginx_proxy_proxy_ssl_verify`
    pub tls_verify: bool,
    /// `lua_ssl_verify_depth`
    pub tls_verify_depth: usize,
    /// `lua_ssl_trusted_certificate`; the system's when empty.
    pub authorities: Vec<CertificateDer<'static>>,
    /// `client_ssl_cert` and `client_ssl_cert_key`, as PEM.
    pub client_certificate: Option<(String, String)>,
}

impl AsRef<Service> for ServiceEntry {
    fn as_ref(&self) -> &Service {
        &self.service
    }
}

impl ServiceEntry {
    pub fn new(service: Arc<Service>, destination: Destination, catalog: &Catalog, defaults: &ServiceDefaults, in_use: &mut InUse) -> Self {
        let limit = |ms: Option<u64>| Duration::from_millis(ms.unwrap_or(60_000));
        let timeouts =
            Timeouts { connect: limit(service.connect_timeout), write: limit(service.write_timeout), read: limit(service.read_timeout) };
        let tls = matches!(service.protocol.as_str(), "https" | "grpcs" | "tls")
            .then(|| upstream_tls(&service, &destination, catalog, defaults, in_use));
        Self {
            timeouts,
            retries: service.retries.and_then(|n| u32::try_from(n).ok()).unwrap_or(5),
            destination,
            host_header: host_with_port(&service.host, service.port, &service.protocol).into(),
            tls,
            service,
        }
    }

    /// Sets where the request goes, before plugins may change it. `prefix` is how much of the path the route's path matched.
    pub fn address(&self, x: &mut Exchange, prefix: Option<usize>, way: Way) {
        let strip = prefix.filter(|_| way.strip_path);
        x.upstream.scheme.clear();
        x.upstream.scheme.push_str(&self.service.protocol);
        x.upstream.host.clear();
        x.upstream.host.push_str(&self.service.host);
        x.upstream.port = self.service.port;
        x.upstream.host_header = if way.preserve_host { x.request.headers.get_str("host").map(str::to_owned) } else { None };
        x.upstream.prefix = strip.and_then(|n| x.path.get(..n)).filter(|p| *p != "/" && !p.is_empty()).map(str::to_owned);
        upstream_path(self.service.path.as_deref(), &x.path, strip, way.handling, &mut x.upstream.target);
        if let Some(query) = x.request.query() {
            x.upstream.target.push('?');
            x.upstream.target.push_str(query);
        }
    }

    /// The terms of TLS, when the scheme wants it.
    pub fn tls_for(&self, scheme: &str) -> Option<Arc<UpstreamTls>> {
        matches!(scheme, "https" | "grpcs").then(|| self.tls.clone().unwrap_or_else(UpstreamTls::unverified))
    }

    /// The Host header of a try: what the route or a plugin wants, else what the target wants, else the service's host.
    pub fn host<'a>(&'a self, x: &'a Exchange, picked: &'a Picked) -> Cow<'a, str> {
        let upstream = &x.upstream;
        if let Some(host) = &upstream.host_header {
            return host.into();
        }
        if let Some(host) = picked.host_header(matches!(upstream.scheme.as_str(), "https" | "grpcs")) {
            return host.into();
        }
        let own = upstream.host == *self.service.host && upstream.port == self.service.port && upstream.scheme == self.service.protocol;
        if own { (&*self.host_header).into() } else { host_with_port(&upstream.host, upstream.port, &upstream.scheme).into() }
    }
}

/// A Host value, with the port where it is not the scheme's own.
fn host_with_port(host: &str, port: u16, scheme: &str) -> String {
    match (scheme, port) {
        ("http" | "grpc", 80) | ("https" | "grpcs", 443) => host.to_owned(),
        _ => format!("{host}:{port}"),
    }
}

fn upstream_tls(
    service: &Service,
    destination: &Destination,
    catalog: &Catalog,
    defaults: &ServiceDefaults,
    in_use: &mut InUse,
) -> Arc<UpstreamTls> {
    let mut authorities: Vec<_> = service
        .ca_certificates
        .iter()
        .flatten()
        .filter_map(|id| CertificateDer::from_pem_slice(text(catalog, "ca_certificates", *id, "cert")?.as_bytes()).ok())
        .collect();
    if service.ca_certificates.is_none() {
        authorities.clone_from(&defaults.authorities);
    }
    let of_upstream = match destination {
        Destination::Upstream(balancer) => balancer.policy.client_certificate,
        Destination::Address(_) | Destination::Name(_) => None,
    };
    let client = match service.client_certificate.map(|parent| parent.id).or(of_upstream) {
        Some(id) => client_pair(catalog, id),
        None => defaults.client_certificate.as_ref().and_then(|(cert, key)| key_pair(cert, key)),
    };
    let terms = Terms {
        verify: service.tls_verify.unwrap_or(defaults.tls_verify),
        depth: service.tls_verify_depth.and_then(|n| usize::try_from(n).ok()).unwrap_or(defaults.tls_verify_depth),
        authorities,
        client,
    };
    in_use.get(terms).unwrap_or_else(|error| {
        tracing::error!(service = %service.id, %error, "the service's TLS configuration is unusable; its upstream will not be reached");
        UpstreamTls::unusable()
    })
}

/// The chain and key of a certificate that is shown to upstreams.
pub fn client_pair(catalog: &Catalog, certificate: uuid::Uuid) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let read = |field| text(catalog, "certificates", certificate, field);
    key_pair(&read("cert")?, &read("key")?)
}

fn text(catalog: &Catalog, entity: &str, id: uuid::Uuid, field: &str) -> Option<String> {
    let row = catalog.get(entity, &id)?.object();
    let text = row.get(field)?.as_str()?;
    if !is_reference(text) {
        return Some(text.to_owned());
    }
    let environment = |name: &str| std::env::var(name).ok();
    let resolved = Vaults::of(catalog, &environment).resolve(text);
    resolved.inspect_err(|error| tracing::error!(entity, %id, field, %error, "a reference has no value")).ok()
}

fn key_pair(cert: &str, key: &str) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    Some((chain.ok()?, PrivateKeyDer::from_pem_slice(key.as_bytes()).ok()?))
}
