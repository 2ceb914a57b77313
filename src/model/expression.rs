//! Expressions of routes: the fields that they may name, and whether one compiles.

use std::sync::LazyLock;

use atc_router::ast::Type;
use atc_router::router::Router;
use atc_router::schema::Schema;
use uuid::Uuid;

/// The fields of HTTP and gRPC requests.
pub fn http() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let mut schema = connection();
        for field in ["http.method", "http.host", "http.path", "http.path.segments.*", "http.headers.*", "http.queries.*"] {
            schema.add_field(field, Type::String);
        }
        schema.add_field("http.path.segments.len", Type::Int);
        schema
    });
    &SCHEMA
}

/// The fields of TCP, TLS and UDP streams.
pub fn stream() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(connection);
    &SCHEMA
}

fn connection() -> Schema {
    let mut schema = Schema::default();
    for (field, kind) in [
        ("net.protocol", Type::String),
        ("tls.sni", Type::String),
        ("net.src.port", Type::Int),
        ("net.dst.port", Type::Int),
        ("net.src.ip", Type::IpAddr),
        ("net.dst.ip", Type::IpAddr),
    ] {
        schema.add_field(field, kind);
    }
    schema
}

/// Whether an expression over these fields compiles; the compiler's text when it does not.
pub fn check(expression: &str, fields: &'static Schema) -> Result<(), String> {
    let mut router = Router::new(fields);
    router.add_matcher(0, Uuid::nil(), expression)?;
    let ill_formed = |field: &String| field.strip_prefix("http.path.segments.").is_some_and(|segment| !is_segment(segment));
    if router.fields.keys().any(ill_formed) {
        return Err("illformed http.path.segments.* field".to_owned());
    }
    Ok(())
}

/// `len`, the number of a segment, or two numbers joined by an underscore.
fn is_segment(segment: &str) -> bool {
    let number = |n: &str| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
    segment == "len" || segment.split_once('_').map_or_else(|| number(segment), |(from, to)| number(from) && number(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let refused = |text: &str, fields| check(text, fields).expect_err("refused");
        assert_eq!(check("http.path == \"/a\" && net.dst.port == 80", http()), Ok(()));
        assert_eq!(refused("http.nope == \"a\"", http()), "Unknown LHS field");
        assert_eq!(refused("http.path == \"/a\"", stream()), "Unknown LHS field");
        assert_eq!(refused("http.path.segments.01 == \"a\"", http()), "illformed http.path.segments.* field");
        assert_eq!(check("http.path.segments.0_1 == \"a/b\"", http()), Ok(()));
    }
}
