use std::time::Duration;

use super::source::parse_file;
use super::value::HeadBuffers;
use super::*;
use crate::router::Flavor;

fn errors(pairs: &[(&str, &str)]) -> Vec<String> {
    Settings::from_pairs(pairs).expect_err("a bad value").0
}

fn from_file(text: &str, environment: &[(&str, &str)], overrides: &[(&str, &str)]) -> Settings {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("written");
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let sources =
        Sources { file: Some(file.path().into()), default_files: vec![], environment: owned(environment), overrides: owned(overrides) };
    Settings::load(&sources).expect("good settings")
}

#[test]
fn defaults_are_good_and_kongs() {
    let settings = Settings::from_pairs(&[]).expect("the defaults");
    assert_eq!(settings.database, Database::Embedded);
    assert_eq!(settings.router_flavor, Flavor::TraditionalCompatible);
    assert_eq!(settings.proxy_listen.len(), 2);
    assert!(settings.proxy_listen[1].ssl && settings.proxy_listen[1].http2 && settings.proxy_listen[1].reuseport);
    assert_eq!(settings.proxy_listen[0].backlog, 16384);
    assert!(settings.headers.via && settings.headers.request_id && !settings.headers.upstream_status);
    assert_eq!(settings.nginx_http_keepalive_timeout, Span(Duration::from_secs(75)));
    assert_eq!(settings.nginx_http_large_client_header_buffers, HeadBuffers { number: 4, size: 8192 });
    assert!(settings.stream_listen.is_empty());
    assert!(settings.prefix.is_absolute());
    assert!(settings.without_effect().is_empty());
}

#[test]
fn later_sources_win() {
    let file = "log_level = debug  # loud\nproxy_listen=off\npg_password = a\\#b\nlua_max_uri_args = 7\n";
    let environment = [("KONG_LOG_LEVEL", "info"), ("KONG_LUA_MAX_URI_ARGS", "8"), ("TROOP_LUA_MAX_URI_ARGS", "9"), ("HOME", "/x")];
    let settings = from_file(file, &environment, &[("prefix", "/p")]);
    assert_eq!(settings.log_level.as_str(), "info");
    assert!(settings.proxy_listen.is_empty());
    assert_eq!(settings.lua_max_uri_args, 9);
    assert_eq!(settings.prefix, std::path::Path::new("/p"));
    assert_eq!(settings.without_effect(), [("lua_max_uri_args", IDLE), ("pg_password", "this release has no PostgreSQL store")]);
    assert_eq!(settings.as_json()["pg_password"], "******");
}

#[test]
fn an_emptied_value_is_unset() {
    let settings = from_file("headers =\nlog_level =\ndns_stale_ttl = NONE\n", &[("KONG_PLUGINS", "")], &[]);
    assert_eq!(settings.headers, EnabledHeaders::default());
    assert!(settings.plugins.is_empty());
    assert_eq!(settings.log_level.as_str(), "notice");
    assert_eq!(settings.dns_stale_ttl, 3600.0);
}

#[test]
fn file_syntax() {
    let text = "# comment\n a = 1 \n\nb = x = y # why\nc = \\#1\nNoValue\n";
    let expected = [("a", "1"), ("b", "x = y"), ("c", "#1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(parse_file(text), expected);
}

#[test]
fn all_errors_at_once_in_kongs_words() {
    assert_eq!(
        errors(&[("lua_max_uri_args", "many"), ("log_level", "loud"), ("trusted_ips", "10.0.0.0/8,nope")]),
        [
            "log_level has an invalid value: 'loud' (debug, info, notice, warn, error, crit, alert, emerg)",
            "trusted_ips must be a comma separated list in the form of IPv4 or IPv6 address or CIDR block or 'unix:', got 'nope'",
            "lua_max_uri_args is not a number: 'many'",
        ]
    );
    assert_eq!(errors(&[("headers", "via,x")]), ["headers: invalid entry 'x'"]);
    assert!(errors(&[("admin_listen", "8001")])[0].starts_with("admin_listen must be of form: [off] | <ip>:<port> [ssl] [http2]"));
    assert!(errors(&[("proxy_listen", "1.2.3.4:80 sll")])[0].starts_with("proxy_listen must be of form"));
    assert_eq!(errors(&[("node_id", "1")]), ["node_id must be a valid UUID"]);
    assert_eq!(errors(&[("port_maps", "80:0")]), ["invalid port mapping (`port_maps`): 80:0"]);
    assert_eq!(errors(&[("ssl_cert", "/nowhere/x.crt")]), ["ssl_cert_key must be specified", "ssl_cert: no such file at /nowhere/x.crt"]);
    assert_eq!(errors(&[("error_template_json", "/nowhere")]), ["error_template_json: no such file at /nowhere"]);
    assert_eq!(errors(&[("database", "mysql")]), ["database has an invalid value: 'mysql' (embedded, off, postgres, cassandra)"]);
    assert!(errors(&[("database", "postgres")])[0].contains("set database to embedded"));
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let sources = Sources { file: Some("/nowhere/troop.conf".into()), ..Sources::default() };
    assert_eq!(Settings::load(&sources).expect_err("no file").0, ["no file at: /nowhere/troop.conf"]);
}

#[test]
fn aliases_and_directives() {
    let settings = from_file("nginx_proxy_real_ip_header = X-Forwarded-For\nnginx_http_foo = 1\nbar = 2\n", &[], &[]);
    assert_eq!(settings.real_ip_header, "X-Forwarded-For");
    assert_eq!(settings.without_effect(), [("bar", UNKNOWN), ("nginx_http_foo", ignored::NGINX)]);
    assert_eq!(settings.as_json()["nginx_proxy_real_ip_header"], "X-Forwarded-For");
}

#[test]
fn a_declared_configuration_needs_a_node_without_a_store() {
    let given = [("declarative_config_string", "{}")];
    let settings = Settings::from_pairs(&given).expect("good settings");
    assert_eq!(settings.without_effect(), [("declarative_config_string", NOT_DECLARED)]);
    let settings = Settings::from_pairs(&[given[0], ("database", "off")]).expect("good settings");
    assert_eq!(settings.without_effect(), []);
}

#[test]
fn references_to_the_environment() {
    let environment = [("LEVEL", "warn"), ("KONG_LOG_LEVEL", "{vault://env/level}")];
    assert_eq!(from_file("", &environment, &[]).log_level.as_str(), "warn");
    assert_eq!(
        errors(&[("log_level", "{vault://env/nothing-here}")])[0],
        "failed to dereference '{vault://env/nothing-here}': could not get value from external vault (no value found) for config option \
         'log_level'"
    );
}

#[test]
fn names_are_in_the_tables_once() {
    let mut names: Vec<&str> = TABLE.iter().flat_map(|s| s.aliases.iter().copied().chain([s.name])).collect();
    names.extend(IGNORED.iter().map(|i| i.name));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_node_keeps_its_id() {
    let prefix = tempfile::tempdir().expect("a directory");
    let settings = Settings::from_pairs(&[("prefix", &prefix.path().display().to_string())]).expect("good settings");
    let id = settings.persistent_node_id().expect("an id");
    assert_eq!(settings.persistent_node_id().expect("the same"), id);
}
