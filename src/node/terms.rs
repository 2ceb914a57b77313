//! What settings say to the parts.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::actors::resolver::{DnsOptions, Order};
use crate::node::StartError;
use crate::plugin::Handles;
use crate::plugin::files::File;
use crate::proxy::client::PoolLimits;
use crate::proxy::engine::Terms;
use crate::proxy::engine::answer::Added;
use crate::proxy::engine::error_body::{Form, Templates};
use crate::proxy::engine::real_ip::{RealIp, Source};
use crate::proxy::server::{Limits, tls};
use crate::settings::{Settings, files};
use crate::snapshot::ServiceDefaults;

/// Name and version that the contract's headers carry.
pub const PRODUCT: &str = "kong/3.10.0";
/// Most bytes of a request body that are read before the upstream is contacted; a longer one streams.
const REQUEST_BUFFER: usize = 1 << 20;

pub fn engine(settings: &Settings, handles: &Handles) -> Result<Terms, StartError> {
    let templates = settings.error_templates().map_err(|error| StartError::Io { what: "cannot read an error template", error })?;
    let headers = &settings.headers;
    let from_proxy_protocol = settings.real_ip_header == "proxy_protocol";
    Ok(Terms {
        added: Added {
            server: headers.server,
            via: headers.via,
            proxy_latency: headers.proxy_latency,
            upstream_latency: headers.upstream_latency,
            response_latency: headers.response_latency,
            upstream_status: headers.upstream_status,
            request_id: headers.request_id,
        },
        request_id_upstream: settings.headers_upstream.request_id,
        product: PRODUCT.to_owned(),
        via: format!("1.1 {PRODUCT}"),
        error_default_form: Form::of_type(settings.error_default_type.as_str()).unwrap_or(Form::Plain),
        templates: Templates { html: templates.html, json: templates.json, xml: templates.xml, plain: templates.plain },
        real_ip: RealIp {
            trusted: settings.trusted_ips.nets.clone(),
            source: if from_proxy_protocol { Source::ProxyProtocol } else { Source::Header(settings.real_ip_header.clone()) },
            recursive: settings.real_ip_recursive,
        },
        allow_debug_header: settings.allow_debug_header,
        request_buffer: REQUEST_BUFFER,
        max_body_size: settings.nginx_http_client_max_body_size.0,
        access_log: access_log(settings, handles)?,
    })
}

fn access_log(settings: &Settings, handles: &Handles) -> Result<Option<Arc<File>>, StartError> {
    let Some(path) = settings.log_file(&settings.proxy_access_log) else { return Ok(None) };
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    folder.map_err(|error| StartError::Io { what: "cannot make the folder of proxy_access_log", error })?;
    Ok(Some(handles.files.file("proxy_access_log", &path.to_string_lossy(), &handles.metrics)))
}

pub fn pool(settings: &Settings) -> PoolLimits {
    let idle = settings.upstream_keepalive_idle_timeout;
    PoolLimits {
        size: settings.upstream_keepalive_pool_size as usize,
        max_requests: settings.upstream_keepalive_max_requests,
        idle_timeout: (idle > 0.0).then(|| Duration::from_secs_f64(idle)),
    }
}

pub fn limits(settings: &Settings) -> Limits {
    let buffers = settings.nginx_http_large_client_header_buffers;
    let line = usize::try_from(buffers.size).unwrap_or(usize::MAX);
    Limits {
        line,
        // nginx reads a head into its buffers after a first one of a kilobyte
        head: usize::try_from(buffers.total()).unwrap_or(usize::MAX).saturating_add(1024),
        keepalive_requests: settings.nginx_http_keepalive_requests,
        streams: settings.nginx_http_http2_max_concurrent_streams,
        header_timeout: settings.nginx_http_client_header_timeout.0,
        keepalive_timeout: settings.nginx_http_keepalive_timeout.0,
        body_timeout: settings.nginx_http_client_body_timeout.0,
        send_timeout: settings.nginx_http_send_timeout.0,
        ..Limits::default()
    }
}

pub fn tls(settings: &Settings) -> tls::Terms {
    let versions = settings.tls_versions();
    tls::Terms { tls12: versions.tls12, tls13: versions.tls13, tickets: settings.ssl_session_tickets }
}

pub fn dns(settings: &Settings) -> DnsOptions {
    let dns = settings.dns();
    let seconds = |s: f64| Duration::from_secs_f64(s.max(0.0));
    DnsOptions {
        servers: dns.servers,
        hosts_file: dns.hosts_file,
        order: dns.order.iter().filter_map(|word| word.parse::<Order>().ok()).collect(),
        valid_ttl: dns.valid_ttl.map(seconds),
        stale_ttl: seconds(dns.stale_ttl),
        not_found_ttl: seconds(dns.not_found_ttl),
        error_ttl: seconds(dns.error_ttl),
        cache_size: usize::try_from(dns.cache_size).unwrap_or(usize::MAX),
        ..DnsOptions::default()
    }
}

/// `passive_recovery_interval`; none when it is 0.
pub fn recovery(settings: &Settings) -> Option<Duration> {
    let seconds = settings.passive_recovery_interval.min(u32::MAX.into());
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
}

pub fn services(settings: &Settings) -> Result<ServiceDefaults, StartError> {
    let read = |entry: &String| files::pem(entry).map_err(StartError::Settings);
    let client_certificate = match (&settings.client_ssl_cert, &settings.client_ssl_cert_key) {
        (Some(cert), Some(key)) if settings.client_ssl => Some((read(cert)?, read(key)?)),
        _ => None,
    };
    let mut authorities = Vec::new();
    for entry in settings.lua_ssl_trusted_certificate.iter() {
        if entry == "system" {
            authorities.extend(rustls_native_certs::load_native_certs().certs);
            continue;
        }
        let unusable = |error: String| StartError::Settings(format!("lua_ssl_trusted_certificate: {error}"));
        let text = files::pem(entry).map_err(unusable)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        authorities.extend(read.map_err(|error| unusable(error.to_string()))?);
    }
    Ok(ServiceDefaults {
        tls_verify: settings.nginx_proxy_proxy_ssl_verify,
        tls_verify_depth: settings.lua_ssl_verify_depth as usize,
        authorities,
        client_certificate,
    })
}
