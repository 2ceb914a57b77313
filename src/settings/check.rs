//! Rules over several settings, and what this release refuses.

use std::path::Path;

use crate::settings::Settings;
use crate::settings::value::{Database, Role};

const DNS_TYPES: &[&str] = &["LAST", "SRV", "A", "AAAA", "CNAME"];

const TRACING: &[&str] = &[
    "off",
    "all",
    "request",
    "db_query",
    "router",
    "http_client",
    "dns_query",
    "rewrite",
    "plugin_rewrite",
    "access",
    "plugin_access",
    "header_filter",
    "plugin_header_filter",
    "body_filter",
    "plugin_body_filter",
    "log",
    "plugin_log",
    "balancer",
];

/// Adds a message for everything that is wrong.
pub fn all(settings: &Settings, errors: &mut Vec<String>) {
    stores_and_roles(settings, errors);
    certificates(settings, errors);
    limits(settings, errors);
    names(settings, errors);
    templates(settings, errors);
    cluster(settings, errors);
}

fn cluster(settings: &Settings, errors: &mut Vec<String>) {
    if !(1..=64).contains(&settings.cluster_size_hint) {
        errors.push("cluster_size_hint must be an integer between 1 and 64".into());
    }
    if !settings.cluster {
        return;
    }
    if settings.database != Database::Embedded {
        errors.push("cluster = on: nodes of a cluster keep the configuration themselves; set database to embedded".into());
    }
    for (name, addresses) in [("cluster_seeds", &settings.cluster_seeds[..]), ("cluster_advertise", settings.cluster_advertise.as_slice())]
    {
        for address in addresses {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                errors.push(format!("{name}: '{address}' is not host:port"));
            }
        }
    }
    if settings.cluster_insecure {
        if !settings.cluster_listen.ip().is_loopback() {
            errors.push("cluster_insecure = on: without TLS nodes speak on loopback addresses only; set cluster_listen to one".into());
        }
        return;
    }
    for (name, entry) in [
        ("cluster_cert", &settings.cluster_cert),
        ("cluster_cert_key", &settings.cluster_cert_key),
        ("cluster_ca_cert", &settings.cluster_ca_cert),
    ] {
        match entry {
            Some(entry) => readable(name, std::slice::from_ref(entry), errors),
            None => {
                errors.push(format!("{name} must be specified with cluster = on; `troop cluster init` and `troop cluster join` make it"))
            }
        }
    }
}

fn stores_and_roles(settings: &Settings, errors: &mut Vec<String>) {
    match settings.database {
        Database::Embedded | Database::Off => {}
        Database::Postgres => errors.push(
            "database = postgres: this release keeps configuration in its embedded store; set database to embedded, or to off with \
             declarative_config"
                .into(),
        ),
        Database::Cassandra => {
            errors.push("Cassandra as a datastore for Kong is not supported in versions 3.4 and above. Please use Postgres.".into())
        }
    }
    if settings.role != Role::Traditional {
        errors.push(format!("role = {}: this release has no hybrid mode; set role to traditional", settings.role.as_str()));
    }
    if !settings.stream_listen.is_empty() {
        errors.push("stream_listen: this release proxies HTTP only; set stream_listen to off".into());
    }
}

fn certificates(settings: &Settings, errors: &mut Vec<String>) {
    for (name, certificates, keys) in [
        ("ssl_cert", &settings.ssl_cert, &settings.ssl_cert_key),
        ("admin_ssl_cert", &settings.admin_ssl_cert, &settings.admin_ssl_cert_key),
        ("status_ssl_cert", &settings.status_ssl_cert, &settings.status_ssl_cert_key),
    ] {
        match (certificates.len(), keys.len()) {
            (0, 0) => {}
            (_, 0) => errors.push(format!("{name}_key must be specified")),
            (0, _) => errors.push(format!("{name} must be specified")),
            (c, k) if c != k => {
                errors.push(format!("{name} was specified {c} times while {name}_key was specified {k} times: they must come in pairs"));
            }
            _ => {}
        }
        readable(name, certificates, errors);
        readable(&format!("{name}_key"), keys, errors);
    }
    match (&settings.client_ssl_cert, &settings.client_ssl_cert_key) {
        (Some(certificate), Some(key)) => {
            readable("client_ssl_cert", std::slice::from_ref(certificate), errors);
            readable("client_ssl_cert_key", std::slice::from_ref(key), errors);
        }
        (Some(_), None) => errors.push("client_ssl_cert_key must be specified".into()),
        (None, Some(_)) => errors.push("client_ssl_cert must be specified".into()),
        (None, None) => {}
    }
    let files: Vec<String> = settings.lua_ssl_trusted_certificate.iter().filter(|entry| *entry != "system").cloned().collect();
    readable("lua_ssl_trusted_certificate", &files, errors);
    for version in settings.ssl_protocols.split_whitespace() {
        if !matches!(version, "TLSv1" | "TLSv1.1" | "TLSv1.2" | "TLSv1.3" | "SSLv2" | "SSLv3") {
            errors.push(format!("ssl_protocols has an invalid value: '{version}' (TLSv1.2, TLSv1.3)"));
        }
    }
    let versions = settings.tls_versions();
    if !versions.tls12 && !versions.tls13 {
        errors.push("ssl_protocols must name TLSv1.2 or TLSv1.3: older versions are not spoken".into());
    }
}

fn readable(name: &str, entries: &[String], errors: &mut Vec<String>) {
    for entry in entries {
        if let Err(e) = super::files::pem(entry) {
            errors.push(format!("{name}: {e}"));
        }
    }
}

fn limits(settings: &Settings, errors: &mut Vec<String>) {
    for (name, value) in [
        ("lua_max_req_headers", settings.lua_max_req_headers),
        ("lua_max_resp_headers", settings.lua_max_resp_headers),
        ("lua_max_uri_args", settings.lua_max_uri_args),
        ("lua_max_post_args", settings.lua_max_post_args),
    ] {
        if !(1..=1000).contains(&value) {
            errors.push(format!("{name} must be an integer between 1 and 1000"));
        }
    }
    if !(settings.upstream_keepalive_idle_timeout >= 0.0 && settings.upstream_keepalive_idle_timeout.is_finite()) {
        errors.push("upstream_keepalive_idle_timeout must be 0 or greater".into());
    }
    if !(0.0..=1.0).contains(&settings.tracing_sampling_rate) {
        errors.push("tracing_sampling_rate must be between 0 and 1".into());
    }
    for name in &settings.tracing_instrumentations {
        if !TRACING.contains(&name.as_str()) {
            errors.push(format!("invalid tracing type: {name}"));
        }
    }
    if settings.real_ip_header.is_empty() || !settings.real_ip_header.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    {
        errors.push(format!("real_ip_header is not the name of a header field: '{}'", settings.real_ip_header));
    }
}

fn names(settings: &Settings, errors: &mut Vec<String>) {
    for (name, order) in [("dns_order", &settings.dns_order), ("resolver_family", &settings.resolver_family)] {
        for kind in order {
            if !DNS_TYPES.contains(&kind.to_ascii_uppercase().as_str()) {
                errors.push(format!("{name}: invalid entry '{kind}'"));
            }
        }
    }
    for (name, ttl) in [
        ("dns_stale_ttl", settings.dns_stale_ttl),
        ("dns_not_found_ttl", settings.dns_not_found_ttl),
        ("dns_error_ttl", settings.dns_error_ttl),
        ("resolver_stale_ttl", settings.resolver_stale_ttl),
        ("passive_recovery_interval", settings.passive_recovery_interval),
        ("resolver_error_ttl", settings.resolver_error_ttl),
        ("dns_valid_ttl", settings.dns_valid_ttl.unwrap_or(0.0)),
        ("resolver_valid_ttl", settings.resolver_valid_ttl.unwrap_or(0.0)),
    ] {
        if !(ttl >= 0.0 && ttl.is_finite()) {
            errors.push(format!("{name} must be 0 or greater"));
        }
    }
}

fn templates(settings: &Settings, errors: &mut Vec<String>) {
    for (name, path) in settings.error_template_paths() {
        if let Some(path) = path {
            check_template(name, path, errors);
        }
    }
}

fn check_template(name: &str, path: &Path, errors: &mut Vec<String>) {
    match std::fs::read_to_string(path) {
        Ok(text) if text.matches("%s").count() == 2 => {}
        Ok(_) => errors.push(format!("{name}: {} must hold two %s, for the message and the request id", path.display())),
        Err(_) => errors.push(format!("{name}: no such file at {}", path.display())),
    }
}
