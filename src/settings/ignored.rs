//! Settings of Kong that have no meaning here, each with the reason. They are accepted, shown by the Admin API, and do
//! nothing.

use crate::settings::Ignored;
use crate::settings::value::Kind;

pub const NGINX: &str = "there is no nginx underneath";
const LUA: &str = "there is no Lua underneath";
const GUI: &str = "there is no GUI in this release";
const CLUSTER: &str = "this release has no hybrid mode";
const POSTGRES: &str = "this release has no PostgreSQL store";
const CACHE: &str = "configuration is in memory: nothing is cached from a database";
const LOG: &str = "messages go to standard error";
const REPORTS: &str = "nothing is ever reported";
const WASM: &str = "there are no WebAssembly filters";
const AT_ONCE: &str = "changes take effect at once";
const RESOLVER: &str = "the resolver has no such switch";
const INNER: &str = "it steers an inner working of Kong that is not there";
const DEBUG: &str = "there is no request debugging in this release";
const TLS: &str = "the TLS library decides this";
const DIRECT: &str = "calls go out directly in this release";

const fn ignored(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Ignored {
    Ignored { name, kind, default, why }
}

/// Settings of Kong that do nothing here.
pub static IGNORED: &[Ignored] = &[
    ignored("proxy_error_log", Kind::String, "logs/error.log", LOG),
    ignored("proxy_stream_access_log", Kind::String, "logs/access.log basic", LOG),
    ignored("proxy_stream_error_log", Kind::String, "logs/error.log", LOG),
    ignored("admin_error_log", Kind::String, "logs/error.log", LOG),
    ignored("admin_gui_access_log", Kind::String, "logs/admin_gui_access.log", GUI),
    ignored("admin_gui_error_log", Kind::String, "logs/admin_gui_error.log", GUI),
    ignored("status_error_log", Kind::String, "logs/status_error.log", LOG),
    ignored("host_ports", Kind::String, "", INNER),
    ignored("anonymous_reports", Kind::Boolean, "on", REPORTS),
    ignored("proxy_server", Kind::String, "", DIRECT),
    ignored("proxy_server_ssl_verify", Kind::Boolean, "on", DIRECT),
    ignored("admin_gui_listen", Kind::Array, "0.0.0.0:8002, 0.0.0.0:8445 ssl", GUI),
    ignored("cluster_control_plane", Kind::String, "127.0.0.1:8005", CLUSTER),
    ignored("cluster_mtls", Kind::Enum(&["shared", "pki"]), "shared", CLUSTER),
    ignored("cluster_server_name", Kind::String, "", CLUSTER),
    ignored("cluster_data_plane_purge_delay", Kind::Number, "1209600", CLUSTER),
    ignored("cluster_ocsp", Kind::Enum(&["on", "off", "optional"]), "off", CLUSTER),
    ignored("cluster_max_payload", Kind::Number, "16777216", CLUSTER),
    ignored("cluster_use_proxy", Kind::Boolean, "off", CLUSTER),
    ignored("cluster_dp_labels", Kind::Array, "", CLUSTER),
    ignored("cluster_rpc", Kind::Boolean, "off", CLUSTER),
    ignored("cluster_rpc_sync", Kind::Boolean, "off", CLUSTER),
    ignored("cluster_cjson", Kind::Boolean, "off", CLUSTER),
    ignored("lmdb_environment_path", Kind::String, "dbless.lmdb", INNER),
    ignored("lmdb_map_size", Kind::String, "2048m", INNER),
    ignored("worker_events_max_payload", Kind::Number, "65535", AT_ONCE),
    ignored("ssl_ciphers", Kind::String, "", TLS),
    ignored("ssl_prefer_server_ciphers", Kind::String, "on", TLS),
    ignored("ssl_dhparam", Kind::String, "", TLS),
    ignored("ssl_session_timeout", Kind::String, "1d", TLS),
    ignored("ssl_session_cache_size", Kind::String, "10m", TLS),
    ignored("admin_gui_ssl_cert", Kind::Array, "", GUI),
    ignored("admin_gui_ssl_cert_key", Kind::Array, "", GUI),
    ignored("nginx_user", Kind::String, "kong kong", NGINX),
    ignored("nginx_daemon", Kind::String, "on", NGINX),
    ignored("nginx_main_daemon", Kind::String, "on", NGINX),
    ignored("nginx_main_user", Kind::String, "kong kong", NGINX),
    ignored("nginx_main_worker_rlimit_nofile", Kind::String, "auto", NGINX),
    ignored("nginx_events_worker_connections", Kind::String, "auto", NGINX),
    ignored("nginx_events_multi_accept", Kind::String, "on", NGINX),
    ignored("nginx_http_charset", Kind::String, "UTF-8", NGINX),
    ignored("nginx_http_ssl_prefer_server_ciphers", Kind::String, "", TLS),
    ignored("nginx_http_ssl_dhparam", Kind::String, "", TLS),
    ignored("nginx_http_ssl_session_timeout", Kind::String, "", TLS),
    ignored("nginx_http_ssl_conf_command", Kind::String, "", TLS),
    ignored("nginx_http_proxy_ssl_conf_command", Kind::String, "", TLS),
    ignored("nginx_http_lua_ssl_conf_command", Kind::String, "", TLS),
    ignored("nginx_http_grpc_ssl_conf_command", Kind::String, "", TLS),
    ignored("nginx_http_lua_regex_match_limit", Kind::String, "100000", NGINX),
    ignored("nginx_http_lua_regex_cache_max_entries", Kind::String, "8192", NGINX),
    ignored("nginx_stream_ssl_conf_command", Kind::String, "", TLS),
    ignored("nginx_stream_proxy_ssl_conf_command", Kind::String, "", TLS),
    ignored("nginx_stream_lua_ssl_conf_command", Kind::String, "", TLS),
    ignored("nginx_stream_ssl_protocols", Kind::String, "", TLS),
    ignored("nginx_stream_ssl_prefer_server_ciphers", Kind::String, "", TLS),
    ignored("nginx_stream_ssl_dhparam", Kind::String, "", TLS),
    ignored("nginx_stream_ssl_session_tickets", Kind::String, "", TLS),
    ignored("nginx_stream_ssl_session_timeout", Kind::String, "", TLS),
    ignored("nginx_admin_client_body_buffer_size", Kind::String, "10m", NGINX),
    ignored("pg_host", Kind::String, "127.0.0.1", POSTGRES),
    ignored("pg_port", Kind::Number, "5432", POSTGRES),
    ignored("pg_database", Kind::String, "kong", POSTGRES),
    ignored("pg_schema", Kind::String, "", POSTGRES),
    ignored("pg_timeout", Kind::Number, "5000", POSTGRES),
    ignored("pg_user", Kind::String, "kong", POSTGRES),
    ignored("pg_password", Kind::String, "", POSTGRES),
    ignored("pg_ssl", Kind::Boolean, "off", POSTGRES),
    ignored("pg_ssl_verify", Kind::Boolean, "off", POSTGRES),
    ignored("pg_max_concurrent_queries", Kind::Number, "0", POSTGRES),
    ignored("pg_semaphore_timeout", Kind::Number, "60000", POSTGRES),
    ignored("pg_keepalive_timeout", Kind::Number, "", POSTGRES),
    ignored("pg_pool_size", Kind::Number, "", POSTGRES),
    ignored("pg_backlog", Kind::Number, "", POSTGRES),
    ignored("pg_ro_host", Kind::String, "", POSTGRES),
    ignored("pg_ro_port", Kind::Number, "", POSTGRES),
    ignored("pg_ro_database", Kind::String, "", POSTGRES),
    ignored("pg_ro_schema", Kind::String, "", POSTGRES),
    ignored("pg_ro_timeout", Kind::Number, "", POSTGRES),
    ignored("pg_ro_user", Kind::String, "", POSTGRES),
    ignored("pg_ro_password", Kind::String, "", POSTGRES),
    ignored("pg_ro_ssl", Kind::Boolean, "", POSTGRES),
    ignored("pg_ro_ssl_verify", Kind::Boolean, "", POSTGRES),
    ignored("pg_ro_max_concurrent_queries", Kind::Number, "", POSTGRES),
    ignored("pg_ro_semaphore_timeout", Kind::Number, "", POSTGRES),
    ignored("pg_ro_keepalive_timeout", Kind::Number, "", POSTGRES),
    ignored("pg_ro_pool_size", Kind::Number, "", POSTGRES),
    ignored("pg_ro_backlog", Kind::Number, "", POSTGRES),
    ignored("db_update_frequency", Kind::Number, "5", CACHE),
    ignored("db_update_propagation", Kind::Number, "0", CACHE),
    ignored("db_cache_ttl", Kind::Number, "0", CACHE),
    ignored("db_cache_neg_ttl", Kind::Number, "", CACHE),
    ignored("db_resurrect_ttl", Kind::Number, "30", CACHE),
    ignored("db_cache_warmup_entities", Kind::Array, "services", CACHE),
    ignored("dns_no_sync", Kind::Boolean, "off", RESOLVER),
    ignored("resolver_mem_cache_size", Kind::String, "5m", RESOLVER),
    ignored("dedicated_config_processing", Kind::Boolean, "on", INNER),
    ignored("worker_consistency", Kind::Enum(&["strict", "eventual"]), "eventual", AT_ONCE),
    ignored("worker_state_update_frequency", Kind::Number, "5", AT_ONCE),
    ignored("lua_socket_pool_size", Kind::Number, "256", LUA),
    ignored("lua_ssl_protocols", Kind::String, "TLSv1.2 TLSv1.3", LUA),
    ignored("lua_package_path", Kind::String, "./?.lua;./?/init.lua;", LUA),
    ignored("lua_package_cpath", Kind::String, "", LUA),
    ignored("kic", Kind::Boolean, "off", INNER),
    ignored("pluginserver_names", Kind::Array, "", LUA),
    ignored("untrusted_lua", Kind::Enum(&["on", "off", "sandbox"]), "sandbox", LUA),
    ignored("untrusted_lua_sandbox_requires", Kind::Array, "", LUA),
    ignored("untrusted_lua_sandbox_environment", Kind::Array, "", LUA),
    ignored("admin_gui_url", Kind::Array, "", GUI),
    ignored("admin_gui_path", Kind::String, "/", GUI),
    ignored("admin_gui_api_url", Kind::String, "", GUI),
    ignored("admin_gui_csp_header", Kind::Boolean, "off", GUI),
    ignored("openresty_path", Kind::String, "", LUA),
    ignored("wasm", Kind::Boolean, "off", WASM),
    ignored("wasm_filters_path", Kind::String, "", WASM),
    ignored("wasm_dynamic_module", Kind::String, "", WASM),
    ignored("wasm_filters", Kind::Array, "bundled,user", WASM),
    ignored("request_debug", Kind::Boolean, "on", DEBUG),
    ignored("request_debug_token", Kind::String, "", DEBUG),
];
