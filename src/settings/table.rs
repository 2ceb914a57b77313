//! The table of settings. A setting is one entry here: its documentation, name, type and default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use uuid::Uuid;

use crate::router::Flavor;
use crate::settings::Setting;
use crate::settings::headers::{EnabledHeaders, UpstreamHeaders};
use crate::settings::listen::Listeners;
use crate::settings::source::{Sources, Texts};
use crate::settings::value::{
    CipherSuite, Database, ErrorType, HeadBuffers, LogLevel, LogTarget, NameServers, PortMaps, Role, Size, Span, TrustedIps, Value, Workers,
};

/// Declares [`Settings`], [`TABLE`] and the way from texts to typed values. `name: Type = "default" [= alias] [secret] [live];`
/// A secret is never shown; a live setting takes effect when settings are read again; an `[idle]` one is used by no code, which
/// `tests/tidy.rs` sees to.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $ty:ty = $default:literal $(= $alias:ident)? $([$flag:ident])*;)+) => {
        /// The settings of a node, as the file, the `KONG_*` and `TROOP_*` variables and the command line make them.
        #[derive(Clone)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $name: $ty,)+
            /// What was written, where it differs from the default.
            pub(super) texts: BTreeMap<String, String>,
            /// Names that somebody gave a value.
            pub(super) given: BTreeSet<String>,
            pub(super) sources: Sources,
        }

        /// Every setting of this program.
        pub static TABLE: &[Setting] = &[$(Setting {
            name: stringify!($name),
            aliases: &[$(stringify!($alias))?],
            kind: <$ty as Value>::KIND,
            default: $default,
            doc: concat!($($doc, "\n"),+),
            secret: flagged(&[$(stringify!($flag)),*], "secret"),
            idle: flagged(&[$(stringify!($flag)),*], "idle"),
            live: flagged(&[$(stringify!($flag)),*], "live"),
        }),+];

        impl Settings {
            /// Reads every value; all type errors are collected.
            pub(super) fn read(texts: Texts, errors: &mut Vec<String>) -> Option<Self> {
                $(let $name = one::<$ty>(stringify!($name), $default, &texts.values, errors);)+
                Some(Self { $($name: $name?,)+ texts: texts.values, given: texts.given, sources: Sources::default() })
            }
        }
    };
}

/// Whether a setting has this flag.
const fn flagged(flags: &[&str], flag: &str) -> bool {
    let mut i = 0;
    while i < flags.len() {
        // flags differ in their first letters
        if flags[i].as_bytes()[0] == flag.as_bytes()[0] {
            return true;
        }
        i += 1;
    }
    false
}

fn one<T: Value>(name: &str, default: &str, texts: &BTreeMap<String, String>, errors: &mut Vec<String>) -> Option<T> {
    // A value that was emptied counts as unset. Where there is no such thing as an unset value, the default stands.
    let text = texts.get(name).map_or(default, String::as_str);
    let read = match T::read(name, text) {
        Err(_) if text.is_empty() => T::read(name, default),
        read => read,
    };
    read.map_err(|e| errors.push(e)).ok()
}

settings! {
    // Where things are.
    /// The data directory: configuration, the node's id, the pid file, default certificates. Unset: `/var/lib/troop` for root, else
    /// `$XDG_DATA_HOME/troop` or `~/.local/share/troop`.
    prefix: PathBuf = "";
    /// The least severe messages that are logged, on standard error.
    log_level: LogLevel = "notice" [live];
    /// File for a line per proxied request (`logs/access.log`, under the prefix, or `/dev/stdout`), or `off`.
    proxy_access_log: LogTarget = "off" [live];
    /// File for a line per request to the Admin API, or `off`.
    admin_access_log: LogTarget = "off";
    /// File for a line per request to the status API, or `off`.
    status_access_log: LogTarget = "off";
    /// The node's id. Unset: one is made up at the first start and kept under the prefix.
    node_id: Option<Uuid> = "";

    // What is loaded.
    /// Plugins that may be configured: `bundled`, `off`, or names.
    plugins: Vec<String> = "bundled";
    /// Vaults that references may name: `bundled` (which is `env`), `off`, or names.
    vaults: Vec<String> = "bundled" [idle];

    // Listeners.
    /// Addresses on which requests are proxied, or `off`. Flags: ssl, http2, proxy_protocol, reuseport, backlog=N, ipv6only=on|off,
    /// so_keepalive=on|off.
    proxy_listen: Listeners = "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport backlog=16384" [live];
    /// Addresses of the Admin API, or `off`. It has no authentication: leave it on an address that only you reach.
    admin_listen: Listeners = "127.0.0.1:8001 reuseport backlog=16384, 127.0.0.1:8444 http2 ssl reuseport backlog=16384";
    /// Addresses of the status API (`/status`, `/status/ready`, `/metrics`), or `off`.
    status_listen: Listeners = "127.0.0.1:8007 reuseport backlog=16384";
    /// Addresses for TCP and TLS streams. This release proxies HTTP only: anything but `off` is refused.
    stream_listen: Listeners = "off";
    /// Ports as clients see them, `external:internal`, when something in front maps them. They show in X-Forwarded-Port.
    port_maps: PortMaps = "" [live];

    // TLS.
    /// Certificates of the proxy listeners, when no SNI matches: paths, or the PEM text itself. Unset: a self-signed pair under the
    /// prefix.
    ssl_cert: Vec<String> = "" [live];
    /// Keys of `ssl_cert`, in the same order.
    ssl_cert_key: Vec<String> = "" [secret] [live];
    /// Certificates of the Admin API.
    admin_ssl_cert: Vec<String> = "" [live];
    /// Keys of `admin_ssl_cert`.
    admin_ssl_cert_key: Vec<String> = "" [secret] [live];
    /// Certificates of the status API.
    status_ssl_cert: Vec<String> = "" [live];
    /// Keys of `status_ssl_cert`.
    status_ssl_cert_key: Vec<String> = "" [secret] [live];
    /// `modern` (TLS 1.3 alone), `intermediate` (1.2 and 1.3), or `old`, `fips`, `custom`, which take the same ciphers as
    /// `intermediate`: TLS 1.0 and 1.1 are not spoken.
    ssl_cipher_suite: CipherSuite = "intermediate" [live];
    /// TLS versions that clients may use, unless `ssl_cipher_suite` is `modern`.
    ssl_protocols: String = "TLSv1.2 TLSv1.3" = nginx_http_ssl_protocols [live];
    /// Whether clients may resume TLS sessions by tickets.
    ssl_session_tickets: bool = "on" = nginx_http_ssl_session_tickets [live];
    /// Whether a certificate is shown to upstreams that ask for one.
    client_ssl: bool = "off";
    /// That certificate: a path, or the PEM text itself.
    client_ssl_cert: Option<String> = "";
    /// Its key.
    client_ssl_cert_key: Option<String> = "" [secret];
    /// Authorities that plugins and upstream verification trust: `system`, or paths.
    lua_ssl_trusted_certificate: Vec<String> = "system";
    /// Greatest depth of a certificate chain where a service does not say one.
    lua_ssl_verify_depth: u32 = "1";
    /// Whether certificates of upstreams are verified where a service does not say (`tls_verify`).
    nginx_proxy_proxy_ssl_verify: bool = "off";

    // Header fields.
    /// Fields of our own in answers: `server_tokens` (Server, Via), `latency_tokens`, single names, or `off`.
    headers: EnabledHeaders = "server_tokens, latency_tokens, x-kong-request-id" [live];
    /// Fields of our own towards upstreams: `x-kong-request-id`, or `off`.
    headers_upstream: UpstreamHeaders = "x-kong-request-id" [live];
    /// Whether a request with `Kong-Debug: 1` is told its route and service.
    allow_debug_header: bool = "off" [live];
    /// Addresses and networks whose X-Forwarded-* and real address fields are believed.
    trusted_ips: TrustedIps = "" [live];
    /// Field in which a trusted peer says the client's address; `proxy_protocol` takes it from that.
    real_ip_header: String = "X-Real-IP" = nginx_proxy_real_ip_header [live];
    /// Whether the last address that is not trusted is taken, instead of the last.
    real_ip_recursive: bool = "off" = nginx_proxy_real_ip_recursive [live];

    // Errors.
    /// Type of an error's body when the client names none.
    error_default_type: ErrorType = "text/plain" [live];
    /// File with the HTML body of errors; two `%s` stand for message and request id.
    error_template_html: Option<PathBuf> = "" [live];
    /// The same in JSON.
    error_template_json: Option<PathBuf> = "" [live];
    /// The same in XML.
    error_template_xml: Option<PathBuf> = "" [live];
    /// The same in plain text.
    error_template_plain: Option<PathBuf> = "" [live];

    // Connections and limits.
    /// Threads that serve requests: a number, or `auto` for one a core.
    nginx_worker_processes: Workers = "auto" = nginx_main_worker_processes [live];
    /// How long requests may take to finish when the node stops.
    nginx_main_worker_shutdown_timeout: Span = "30s" [live];
    /// Idle connections kept to each upstream, in each thread; 0 keeps none.
    upstream_keepalive_pool_size: u32 = "512" [live];
    /// Requests on one connection to an upstream before it is closed.
    upstream_keepalive_max_requests: u64 = "10000" [live];
    /// Seconds that a connection to an upstream may be idle.
    upstream_keepalive_idle_timeout: f64 = "60" [live];
    /// Requests on one connection of a client before it is closed.
    nginx_http_keepalive_requests: u64 = "10000" [live];
    /// How long a client's connection may be idle.
    nginx_http_keepalive_timeout: Span = "75s" [live];
    /// How long a request's head may take to arrive.
    nginx_http_client_header_timeout: Span = "60s" [live];
    /// How long may pass between two pieces of a request's body.
    nginx_http_client_body_timeout: Span = "60s" [live];
    /// How long may pass between two pieces of an answer that the client takes.
    nginx_http_send_timeout: Span = "60s" [live];
    /// Greatest size of a request's body; 0 is no limit.
    nginx_http_client_max_body_size: Size = "0" [live];
    /// What of a request's body is held in memory before a buffered request goes on.
    client_body_buffer_size: Size = "8k" = nginx_http_client_body_buffer_size [idle];
    /// Number and size of the buffers for a request's head; one line must fit in one buffer.
    nginx_http_large_client_header_buffers: HeadBuffers = "4 8k" = nginx_proxy_large_client_header_buffers [live];
    /// Requests at the same time on one HTTP/2 connection.
    nginx_http_http2_max_concurrent_streams: u32 = "128" [live];
    /// Greatest size of a body sent to the Admin API.
    nginx_admin_client_max_body_size: Size = "10m";
    /// Header fields of a request that are looked at.
    lua_max_req_headers: u32 = "100" [idle];
    /// Header fields of an answer that plugins look at.
    lua_max_resp_headers: u32 = "100" [idle];
    /// Query arguments that plugins look at.
    lua_max_uri_args: u32 = "100" [idle];
    /// Arguments of a form that plugins look at.
    lua_max_post_args: u32 = "100" [idle];
    /// Memory for answers that proxy-cache keeps, on this node, for all configurations together. One answer takes at most a sixteenth.
    mem_cache_size: Size = "128m";
    /// A dictionary, `name size`, that `dictionary_name` of proxy-cache may name besides Kong's own. They are all one memory, so that
    /// with this setting any name is taken.
    nginx_http_lua_shared_dict: Option<String> = "";

    // Configuration.
    /// Where configuration is kept: `embedded` (a file under the prefix) or `off` (declared, in memory). `postgres` is refused by
    /// this release.
    database: Database = "embedded";
    /// File with the configuration of a node with `database = off`.
    declarative_config: Option<PathBuf> = "";
    /// The same as text.
    declarative_config_string: Option<String> = "" [secret];
    /// How routes are matched: `traditional`, `traditional_compatible` or `expressions`.
    router_flavor: Flavor = "traditional_compatible";
    /// Part in a hybrid deployment. This release knows `traditional`.
    role: Role = "traditional";

    // Names.
    /// Name servers; those of /etc/resolv.conf when unset.
    dns_resolver: NameServers = "";
    /// File of names that are not asked for.
    dns_hostsfile: PathBuf = "/etc/hosts";
    /// Kinds of record, in the order in which they are asked for.
    dns_order: Vec<String> = "LAST,SRV,A,CNAME";
    /// Seconds for which answers hold, in place of their own.
    dns_valid_ttl: Option<f64> = "";
    /// Seconds for which an expired answer may be used while it is refreshed.
    dns_stale_ttl: f64 = "3600";
    /// Names remembered.
    dns_cache_size: u64 = "10000";
    /// Seconds for which an absent name is remembered.
    dns_not_found_ttl: f64 = "30";
    /// Seconds for which a failure is remembered.
    dns_error_ttl: f64 = "1";
    /// Whether the `resolver_*` settings count in place of the `dns_*` ones.
    new_dns_client: bool = "off";
    /// Name servers.
    resolver_address: NameServers = "";
    /// File of names that are not asked for.
    resolver_hosts_file: PathBuf = "/etc/hosts";
    /// Kinds of record that are asked for.
    resolver_family: Vec<String> = "A,SRV";
    /// Seconds for which answers hold, in place of their own.
    resolver_valid_ttl: Option<f64> = "";
    /// Seconds for which an expired answer may be used while it is refreshed.
    resolver_stale_ttl: f64 = "3600";
    /// Names remembered.
    resolver_lru_cache_size: u64 = "10000";
    /// Seconds for which a failure is remembered.
    resolver_error_ttl: f64 = "1";

    // Balancing.
    /// Seconds between probes of targets that passive health checks took out, where no active checks bring them back; 0 turns
    /// these probes off. They go where the upstream's active checks would.
    passive_recovery_interval: f64 = "0";

    // Tracing.
    /// What spans are made of: `off`, `all`, or names.
    tracing_instrumentations: Vec<String> = "off" = opentelemetry_tracing [idle];
    /// Share of requests that are traced, 0 to 1.
    tracing_sampling_rate: f64 = "0.01" = opentelemetry_tracing_sampling_rate [idle];
}
