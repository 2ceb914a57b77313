//! Routes: which requests go to which service.

use std::collections::BTreeMap;

use schema::check::Match;
use schema::record::Chosen;
use schema::text::percent_encoded;
use schema::types::{HeaderName, Id, IpOrCidr, Parent, Set, Tags, UtfName, WildcardHost};
use schema::{Check, Context, Entity, Field, FieldType, Object, Value, Violations};
use serde::Deserialize;

use super::expression;
use super::regex::pattern_error;

/// The feature of nodes whose router speaks expressions.
pub const EXPRESSIONS: &str = "expressions";
/// The feature of nodes whose router is the old one, which compiles no expressions.
pub const TRADITIONAL: &str = "traditional";

/// A rule by which requests are matched to a service.
#[derive(Clone, Debug, Deserialize, Entity)]
#[entity(name = "routes", endpoint_key = "name", chooses("protocols", "unknown type: %s", of_protocol))]
#[record(
    check(Check::conditional_error(
        "protocols",
        Match::Elements(schema::Rule::NotOneOf(["grpcs", "https", "tls", "tls_passthrough"].map(Value::from).to_vec())),
        "snis",
        Match::Empty,
        "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
    )),
    check(Check::custom(&["path_handling"], |_| Ok(()))),
    check(Check::contextual(
        &["id", "protocols", "snis", "sources", "destinations", "methods", "hosts", "paths", "headers", "expression", "regex_priority", "priority"],
        check_expression,
    )),
)]
pub struct Route {
    #[field(auto)]
    pub id: Id,
    #[field(auto, timestamp)]
    pub created_at: i64,
    #[field(auto, timestamp)]
    pub updated_at: i64,
    /// A unique string representing a UTF-8 encoded name.
    #[field(unique)]
    pub name: Option<UtfName>,
    /// An array of the protocols this Route should allow.
    #[field(default = ["http", "https"], len_min(1), exclusive(EXCLUSIVE), elements(protocol))]
    pub protocols: Set<String>,
    /// The status code Kong responds with when all properties of a Route match except the protocol
    #[field(default = 426, one_of(&[426, 301, 302, 307, 308]))]
    pub https_redirect_status_code: u16,
    /// When matching a Route via one of the paths, strip the matching prefix from the upstream request URL.
    #[field(default = true)]
    pub strip_path: bool,
    /// When matching a Route via one of the hosts domain names, use the request Host header in the upstream request headers.
    #[field(default = false)]
    pub preserve_host: bool,
    /// Whether to enable request body buffering or not. With HTTP 1.1.
    #[field(default = true)]
    pub request_buffering: bool,
    /// Whether to enable response body buffering or not.
    #[field(default = true)]
    pub response_buffering: bool,
    pub tags: Option<Tags>,
    /// The Service this Route is associated to. This is where the Route proxies traffic to.
    #[field(parent("services"))]
    pub service: Option<Parent>,
    /// A list of SNIs that match this Route.
    #[field(elements(|_| WildcardHost::field()))]
    pub snis: Option<Set<String>>,
    /// A set of sources, each of which is a record with at least one of 'ip' or 'port'.
    pub sources: Option<Set<Endpoint>>,
    /// A set of destinations, each of which is a record with at least one of 'ip' or 'port'.
    pub destinations: Option<Set<Endpoint>>,
    /// A set of strings representing HTTP methods. Each method must be a valid HTTP method.
    #[field(elements(|_| schema::types::Method::field()))]
    pub methods: Option<Set<String>>,
    /// An array of strings representing hosts. A valid host is a string containing one or more labels separated by periods,
    /// with at most one wildcard label ('*')
    #[field(elements(host))]
    pub hosts: Option<Vec<String>>,
    /// An array of strings representing router paths.
    #[field(elements(path))]
    pub paths: Option<Vec<String>>,
    /// A map of header names to arrays of header values.
    #[field(keys(header))]
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    /// A number used to choose which route resolves a given request when several routes match it using regexes simultaneously.
    #[field(default = 0)]
    pub regex_priority: Option<i64>,
    /// Controls how the Service path, Route path and requested path are combined when sending a request to the upstream.
    #[field(default = "v0", one_of(&["v0", "v1"]))]
    pub path_handling: Option<String>,
    /// The route expression.
    #[field(feature(EXPRESSIONS))]
    #[serde(default)]
    pub expression: Option<String>,
    /// A number used to specify the matching order for expression routes. The higher the `priority`, the sooner an route will be
    /// evaluated. This field is ignored unless `expression` field is set.
    #[field(feature(EXPRESSIONS), default = 0, between(0, 70368744177663))]
    #[serde(default)]
    pub priority: u64,
}

/// An address, a port or both, of one end of a connection.
#[derive(Clone, Debug, Deserialize, PartialEq, schema::Record)]
#[record(check(Check::at_least_one_of(&["ip", "port"])))]
pub struct Endpoint {
    pub ip: Option<IpOrCidr>,
    /// An integer representing a port number between 0 and 65535, inclusive.
    #[field(between(0, 65535))]
    pub port: Option<u16>,
}

const PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];
const EXCLUSIVE: &[&[&str]] = &[&["http", "https"], &["tcp", "tls", "udp"], &["tls_passthrough"], &["grpc", "grpcs"]];

/// What routes of a protocol may and must have.
fn of_protocol(protocol: &str, context: &Context) -> Option<Chosen> {
    let expressions = context.has(EXPRESSIONS);
    let connections: &[&str] = if expressions { &[] } else { &["sources", "destinations"] };
    let (fields, protocols): (Vec<&str>, _) = match protocol {
        "http" | "https" => (connections.to_vec(), "'http' or 'https'"),
        "grpc" | "grpcs" => ([&["methods"], connections].concat(), "'grpc' or 'grpcs'"),
        "tcp" | "tls" | "tls_passthrough" | "udp" => {
            (vec!["methods", "hosts", "paths", "headers"], "'tcp', 'tls', 'tls_passthrough' or 'udp'")
        }
        _ => return None,
    };
    let own = &<Route as schema::RecordType>::record().fields;
    let without = |field: &&Field| fields.contains(&field.name);
    let mut fields: Vec<Field> =
        own.iter().filter(without).map(|f| f.clone().equals(Value::Null).error(refusal(f.name, protocols))).collect();
    let checks = match protocol {
        "http" | "https" => vec![one_of("https", "http", &["methods", "hosts", "headers", "paths"])],
        "grpc" | "grpcs" => {
            let strip_path = bool::field().named("strip_path").default(false.into()).not_equals(true);
            fields.push(strip_path.error("cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'"));
            vec![one_of("grpcs", "grpc", &["hosts", "headers", "paths"])]
        }
        _ => vec![
            stream(
                &["tcp", "tls", "udp"],
                &["sources", "destinations", "snis", "expression"],
                "must set one of %s when 'protocols' is 'tcp', 'tls' or 'udp'",
            ),
            stream(&["tls_passthrough"], &["snis", "expression"], "must set snis when 'protocols' is 'tls_passthrough'"),
        ],
    };
    Some(Chosen { config: None, fields, checks })
}

/// The text for a field that routes of these protocols cannot have.
fn refusal(field: &str, protocols: &str) -> &'static str {
    match (field, protocols.starts_with("'http'"), protocols.starts_with("'grpc'")) {
        ("sources", true, _) => "cannot set 'sources' when 'protocols' is 'http' or 'https'",
        ("destinations", true, _) => "cannot set 'destinations' when 'protocols' is 'http' or 'https'",
        ("sources", _, true) => "cannot set 'sources' when 'protocols' is 'grpc' or 'grpcs'",
        ("destinations", _, true) => "cannot set 'destinations' when 'protocols' is 'grpc' or 'grpcs'",
        ("methods", _, true) => "cannot set 'methods' when 'protocols' is 'grpc' or 'grpcs'",
        ("methods", ..) => "cannot set 'methods' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
        ("hosts", ..) => "cannot set 'hosts' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
        ("paths", ..) => "cannot set 'paths' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
        _ => "cannot set 'headers' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
    }
}

/// One of the fields for a plain protocol; its secure sister has SNIs besides.
fn one_of(secure: &'static str, plain: &'static str, fields: &[&'static str]) -> Check {
    let (error, or_error) = match plain {
        "http" => ("must set one of %s when 'protocols' is 'https'", "must set one of %s when 'protocols' is 'http'"),
        _ => ("must set one of %s when 'protocols' is 'grpcs'", "must set one of %s when 'protocols' is 'grpc'"),
    };
    Check::ConditionalAtLeastOneOf {
        when: "protocols",
        is: Match::contains(secure),
        then: [fields, &["snis", "expression"]].concat(),
        error,
        or: Some((Match::contains(plain), [fields, &["expression"]].concat(), or_error)),
    }
}

fn stream(protocols: &[&'static str], fields: &[&'static str], error: &'static str) -> Check {
    let protocols = protocols.iter().copied().map(Value::from).collect();
    let is = Match::Elements(schema::Rule::OneOf(protocols));
    Check::ConditionalAtLeastOneOf { when: "protocols", is, then: fields.to_vec(), error, or: None }
}

fn protocol(element: Field) -> Field {
    element.doc("A string representing a protocol, such as HTTP or HTTPS.").one_of(PROTOCOLS)
}

fn host(element: Field) -> Field {
    element
        .match_all(&[("^[^*]*%*?[^*]*$", "invalid wildcard: must have at most one wildcard")])
        .match_any(&["^%*%.", "%.%*$", "^[^*]*$"], "invalid wildcard: must be placed at leftmost or rightmost label")
        .check("host_with_wildcards", |value| {
            let host = value.as_str().unwrap_or_default().replace('*', "abc");
            schema::host::HostPort::parse(&host).map(drop)
        })
}

fn path(element: Field) -> Field {
    element
        .doc(
            "A string representing a router path. It must start with a forward slash ('/') for a fixed path, or the sequence \
             '~/' for a regex path. It must not have empty segments.",
        )
        .match_any(&["^/", "^~/"], "should start with: / (fixed path) or ~/ (regex path)")
        .match_none(&[("//", "must not have empty segments")])
        .check("router_path", |value| check_path(value.as_str().unwrap_or_default()))
}

fn header(_: Field) -> Field {
    HeaderName::field()
        .match_none(&[("^[Hh][Oo][Ss][Tt]$", "cannot contain 'host' header, which must be specified in the 'hosts' attribute")])
}

fn check_path(path: &str) -> Result<(), String> {
    if let Some(pattern) = path.strip_prefix('~') {
        return match pattern_error(pattern) {
            Some(error) => Err(format!("invalid regex: '{pattern}' (PCRE returned: {error})")),
            None => Ok(()),
        };
    }
    percent_encoded(path)?;
    let normal = schema::path::normalize(path.as_bytes());
    if normal == path.as_bytes() {
        return Ok(());
    }
    Err(format!("non-normalized path, consider use '{}' instead", String::from_utf8_lossy(&normal)))
}

/// The expression compiles and stands alone.
fn check_expression(route: &Object, context: &Context) -> Result<(), Violations> {
    let set = |name: &str| match route.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(table)) => !table.is_empty(),
        Some(_) => true,
    };
    let number = |name: &str| route.get(name).and_then(Value::as_i64).unwrap_or(0);
    let failed = |why: &str| Err(Violations::entity(format!("Router Expression failed validation: {why}")));
    let classic = ["methods", "hosts", "paths", "headers", "snis", "sources", "destinations"].into_iter().any(set);
    let Some(expression) = route.get("expression").and_then(Value::as_str) else {
        if classic && number("priority") != 0 {
            return failed(
                "cannot set 'priority' with 'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations' simultaneously",
            );
        }
        return Ok(());
    };
    if classic {
        return failed(
            "cannot set 'expression' with 'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations' simultaneously",
        );
    }
    if number("regex_priority") != 0 {
        return failed("cannot set 'regex_priority' with 'expression' simultaneously");
    }
    if context.has(TRADITIONAL) {
        return Ok(());
    }
    let first = route.get("protocols").and_then(|p| p.get(0)).and_then(Value::as_str).unwrap_or_default();
    let fields = if matches!(first, "tcp" | "tls" | "tls_passthrough" | "udp") { expression::stream() } else { expression::http() };
    match expression::check(expression, fields) {
        Ok(()) => Ok(()),
        Err(error) => failed(&error),
    }
}
