//! The table of endpoints: paths to methods to handlers. `Allow`, `/endpoints`, 404 and 405 all come from it.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::http::Method;
use percent_encoding::percent_decode_str;

use crate::admin::answer::Outcome;
use crate::admin::body::Accepts;
use crate::admin::call::Call;

/// What answers one method at one path.
pub type Handler = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Outcome>>> + Send + Sync>;

/// An async function as a [`Handler`].
pub fn handler<F, A>(function: F) -> Handler
where
    F: Fn(Call) -> A + Send + Sync + 'static,
    A: Future<Output = Outcome> + 'static,
{
    Arc::new(move |call| Box::pin(function(call)))
}

/// One path and what its methods do.
#[derive(Clone, Default)]
pub struct Endpoint {
    /// `/services/{services}`
    pub pattern: String,
    pub accepts: Accepts,
    methods: BTreeMap<&'static str, Handler>,
}

impl Endpoint {
    /// The handler of a method; HEAD is GET's.
    pub fn handler(&self, method: &Method) -> Option<&Handler> {
        let name = if method == Method::HEAD { "GET" } else { method.as_str() };
        self.methods.get(name)
    }

    /// Names of the methods, sorted and joined, as `Allow` shows them.
    pub fn allow(&self) -> String {
        let mut names: Vec<&str> = self.methods.keys().copied().chain(["OPTIONS"]).collect();
        if self.methods.contains_key("GET") {
            names.push("HEAD");
        }
        names.sort_unstable();
        names.join(", ")
    }

    pub fn methods(&self) -> impl Iterator<Item = &'static str> {
        self.methods.keys().copied()
    }
}

/// All endpoints of a listener.
#[derive(Default)]
pub struct Table {
    root: Node,
}

#[derive(Default)]
struct Node {
    fixed: HashMap<String, Node>,
    any: Option<Box<Node>>,
    endpoint: Option<Endpoint>,
}

/// Names and decoded values of the variable segments of a path.
pub type Params = Vec<(String, String)>;

impl Table {
    /// Sets what a method does at a path; `{name}` stands for any segment.
    pub fn set(&mut self, pattern: &str, method: &'static str, handler: Handler) {
        self.endpoint(pattern).methods.insert(method, handler);
    }

    /// Several methods at once, in the place of those that the path had.
    pub fn put<const N: usize>(&mut self, pattern: &str, methods: [(&'static str, Handler); N]) {
        self.endpoint(pattern).methods = methods.into_iter().collect();
    }

    /// YAML bodies are read at this path.
    pub fn accept_yaml(&mut self, pattern: &str) {
        self.endpoint(pattern).accepts = Accepts { yaml: true };
    }

    fn endpoint(&mut self, pattern: &str) -> &mut Endpoint {
        let mut node = &mut self.root;
        for segment in segments(pattern) {
            node = match variable(segment) {
                Some(_) => node.any.get_or_insert_default(),
                None => node.fixed.entry(segment.to_owned()).or_default(),
            };
        }
        node.endpoint.get_or_insert_with(|| Endpoint { pattern: pattern.to_owned(), ..Endpoint::default() })
    }

    /// Changes the handlers at a path and at those below it; `change` gets the pattern.
    pub fn wrap(&mut self, pattern: &str, change: impl Fn(&str, Handler) -> Handler) {
        if let Some(node) = self.node(pattern) {
            node.each(&mut |endpoint| {
                for handler in endpoint.methods.values_mut() {
                    *handler = change(&endpoint.pattern, handler.clone());
                }
            });
        }
    }

    /// Turns a path off.
    pub fn remove(&mut self, pattern: &str) {
        if let Some(node) = self.node(pattern) {
            node.endpoint = None;
        }
    }

    fn node(&mut self, pattern: &str) -> Option<&mut Node> {
        segments(pattern).try_fold(&mut self.root, |node, segment| {
            if variable(segment).is_some() { node.any.as_deref_mut() } else { node.fixed.get_mut(segment) }
        })
    }

    /// The endpoint of a path, as it came: percent-encoded, with or without a slash at its end.
    pub fn find(&self, path: &str) -> Option<(&Endpoint, Params)> {
        let mut wanted = Vec::new();
        for segment in segments(path) {
            wanted.push(percent_decode_str(segment).decode_utf8().ok()?.into_owned());
        }
        let mut values = Vec::new();
        let endpoint = self.root.find(&wanted, &mut values)?;
        let names = segments(&endpoint.pattern).filter_map(variable).map(str::to_owned);
        Some((endpoint, names.zip(values.into_iter().rev()).collect()))
    }

    /// All endpoints, sorted segment by segment.
    pub fn endpoints(&self) -> Vec<&Endpoint> {
        let mut out = Vec::new();
        self.root.collect(&mut out);
        out.sort_by(|a, b| segments(&a.pattern).cmp(segments(&b.pattern)));
        out
    }
}

impl Node {
    /// Fixed segments go before variable ones, whose values are pushed from the last to the first.
    fn find(&self, path: &[String], values: &mut Vec<String>) -> Option<&Endpoint> {
        let Some((first, rest)) = path.split_first() else { return self.endpoint.as_ref() };
        if let Some(found) = self.fixed.get(first).and_then(|node| node.find(rest, values)) {
            return Some(found);
        }
        let node = self.any.as_ref().filter(|_| !first.is_empty())?;
        let found = node.find(rest, values)?;
        values.push(first.clone());
        Some(found)
    }

    fn each(&mut self, change: &mut dyn FnMut(&mut Endpoint)) {
        self.endpoint.iter_mut().for_each(&mut *change);
        self.fixed.values_mut().chain(self.any.as_deref_mut()).for_each(|node| node.each(change));
    }

    fn collect<'a>(&'a self, out: &mut Vec<&'a Endpoint>) {
        out.extend(&self.endpoint);
        self.fixed.values().chain(self.any.as_deref()).for_each(|node| node.collect(out));
    }
}

/// The name of a segment `{name}`.
fn variable(segment: &str) -> Option<&str> {
    segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'))
}

/// Segments of a path without the slash at its end.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').filter(move |_| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::answer::Answer;

    fn table(patterns: &[&str]) -> Table {
        let mut table = Table::default();
        for pattern in patterns {
            table.set(pattern, "GET", handler(|_| async { Ok(Answer::empty(204)) }));
        }
        table
    }

    fn found(table: &Table, path: &str) -> Option<String> {
        let (endpoint, params) = table.find(path)?;
        Some(params.into_iter().fold(endpoint.pattern.clone(), |at, (name, value)| at.replace(&format!("{{{name}}}"), &value)))
    }

    #[test]
    fn paths_are_found() {
        let table = table(&[
            "/",
            "/plugins",
            "/plugins/{plugins}",
            "/plugins/enabled",
            "/plugins/{plugins}/route",
            "/plugins/{other}/route/{x}",
            "/u/{u}/t/{t}/healthy",
        ]);
        for path in ["/", "/plugins", "/plugins/enabled", "/plugins/x", "/plugins/enabled/route", "/u/1/t/2/healthy"] {
            assert_eq!(found(&table, path).as_deref(), Some(path), "{path}");
        }
        assert_eq!(found(&table, "/plugins/").as_deref(), Some("/plugins"));
        assert_eq!(found(&table, "/plugins/a%2Fb%20c").as_deref(), Some("/plugins/a/b c"));
        let (_, params) = table.find("/plugins/1/route/2").expect("an endpoint");
        assert_eq!(params, [("other", "1"), ("x", "2")].map(|(n, v)| (n.to_owned(), v.to_owned())));
        for path in ["/plugin", "/plugins//", "/plugins//route", "/plugins/x/y", "/plugins/%FF", "/u/1/t"] {
            assert_eq!(found(&table, path), None, "{path}");
        }
    }

    #[test]
    fn allowed_methods_and_order() {
        let mut table = table(&["/b/{b}", "/b", "/b-c", "/a", "/b/{b}/d"]);
        table.set("/b", "POST", handler(|_| async { Ok(Answer::empty(204)) }));
        let patterns: Vec<_> = table.endpoints().iter().map(|e| e.pattern.clone()).collect();
        assert_eq!(patterns, ["/a", "/b", "/b/{b}", "/b/{b}/d", "/b-c"]);
        assert_eq!(table.find("/b").map(|(e, _)| e.allow()).as_deref(), Some("GET, HEAD, OPTIONS, POST"));
        table.remove("/b");
        assert!(table.find("/b").is_none());
        assert!(table.find("/b/1").is_some());
    }
}
