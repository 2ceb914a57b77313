//! Service path + what is left of the request's path.

use crate::router::escape;

/// How the two are joined (`path_handling`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handling {
    /// With exactly one slash between them.
    #[default]
    V0,
    /// Simply one after the other; only the traditional flavour has it.
    V1,
}

/// Writes the path that goes upstream. `path` is the normalized path of the request, `strip` how many bytes are taken off its start.
pub fn upstream_path(service_path: Option<&str>, path: &str, strip: Option<usize>, handling: Handling, out: &mut String) {
    out.clear();
    let base = service_path.unwrap_or("/");
    match (strip.map(|prefix| rest(path, prefix)), handling) {
        (Some(rest), Handling::V0) => stripped(base, path, rest, out),
        (None, Handling::V0) => {
            out.push_str(base.strip_suffix('/').unwrap_or(base));
            if path != "/" || base.ends_with('/') {
                escape(path, out);
            }
        }
        (rest, Handling::V1) => {
            let rest = rest.unwrap_or_else(|| path.strip_prefix('/').unwrap_or(path));
            out.push_str(base);
            escape(if base.ends_with('/') { rest.strip_prefix('/').unwrap_or(rest) } else { rest }, out);
        }
    }
    if !out.starts_with('/') {
        out.insert(0, '/');
    }
}

fn stripped(base: &str, path: &str, rest: &str, out: &mut String) {
    let trimmed = base.strip_suffix('/').unwrap_or(base);
    out.push_str(trimmed);
    if rest.is_empty() {
        if trimmed.is_empty() || path.len() > 1 && path.ends_with('/') || base.len() > 1 && base.ends_with('/') && path == "/" {
            out.push('/');
        }
        return;
    }
    if !rest.starts_with('/') {
        out.push('/');
    }
    escape(rest, out);
}

/// What follows the prefix, without dot segments at its start, which only appear when a prefix is cut off within a segment.
fn rest(path: &str, prefix: usize) -> &str {
    let rest = path.get(prefix..).unwrap_or_default();
    match rest {
        "." | ".." => "",
        rest => rest.strip_prefix("../").or_else(|| rest.strip_prefix("./")).unwrap_or(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::{Handling, upstream_path};

    fn join(service: &str, route: &str, strip: bool, request: &str, handling: Handling) -> String {
        let mut out = String::new();
        upstream_path(Some(service), request, strip.then_some(route.len()), handling, &mut out);
        out
    }

    /// service path, route path, strip_path, request, upstream
    #[test]
    fn joins_of_version_0() {
        let cases = include_str!("../../tests/golden/path_joins_v0.txt");
        let mut tried = 0;
        for line in cases.lines().filter(|l| !l.is_empty()) {
            let [service, route, strip, request, upstream] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert_eq!(join(service, route, strip == "true", request, Handling::V0), upstream, "{line}");
            tried += 1;
        }
        assert_eq!(tried, 54);
    }

    #[test]
    fn joins_of_version_1() {
        for (service, route, strip, request, upstream) in [
            ("/s", "/r", true, "/r/req", "/s/req"),
            ("/s", "/r", true, "/rreq", "/sreq"),
            ("/s/", "/r", true, "/r", "/s/"),
            ("/s", "/r", false, "/r/req", "/sr/req"),
            ("/s/", "/r", true, "/r/req", "/s/req"),
        ] {
            assert_eq!(join(service, route, strip, request, Handling::V1), upstream, "{service} {route} {strip} {request}");
        }
    }

    #[test]
    fn what_is_left_climbs_nowhere() {
        for (request, upstream) in [("/a..", "/"), ("/a../b", "/b"), ("/a./b", "/b"), ("/a b", "/%20b")] {
            assert_eq!(join("/", "/a", true, request, Handling::V0), upstream);
        }
    }
}
