//! Query arguments of the Admin API, and the options of lists among them.

use serde_json::Value;

use crate::admin::args::{self, ArgumentError};
use crate::catalog::{TagFilter, WriteError};

/// Rows of a page when the client does not say.
pub const DEFAULT_SIZE: usize = 100;
const MAX_SIZE: usize = 1000;
const MAX_TAGS: usize = 5;

/// The arguments of a query string, in order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, Option<String>)>);

impl Query {
    pub fn parse(text: &str) -> Result<Self, ArgumentError> {
        args::pairs(text.as_bytes()).map(Self)
    }

    /// All values of an argument; one without `=` is an empty text.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_deref().unwrap_or_default())
    }

    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The pairs as a form would hold them.
    pub fn form(self) -> Vec<(String, Value)> {
        self.0.into_iter().map(|(k, v)| (k, v.map_or(Value::Bool(true), Value::String))).collect()
    }

    /// Whether a switch is on: `1`, `true`, `on`, `yes`.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes"))
    }

    /// `size`: 1 to 1000, 100 when absent.
    pub fn size(&self) -> Result<usize, WriteError> {
        let Some(text) = self.get("size") else { return Ok(DEFAULT_SIZE) };
        let Ok(number) = text.trim().parse::<f64>() else { return Err(WriteError::invalid_size("size must be a number")) };
        if number.fract() != 0.0 || number < 1.0 || number > MAX_SIZE as f64 {
            return Err(WriteError::invalid_size(&format!("size must be an integer between 1 and {MAX_SIZE}")));
        }
        Ok(number as usize)
    }

    /// `tags`: names joined by `,` (all of them) or `/` (any of them).
    pub fn tags(&self) -> Result<Option<TagFilter>, WriteError> {
        let mut given = self.all("tags");
        let Some(text) = given.next() else { return Ok(None) };
        let refused = |why: &str| Err(WriteError::invalid_option("tags", why));
        if given.next().is_some() {
            return refused("invalid filter syntax");
        }
        if text.is_empty() {
            return refused("cannot be null");
        }
        let any = text.contains('/');
        let tags: Vec<String> = text.split(if any { '/' } else { ',' }).map(str::to_owned).collect();
        if (any && text.contains(',')) || tags.iter().any(String::is_empty) {
            return refused("invalid filter syntax");
        }
        if tags.len() > MAX_TAGS {
            return refused("cannot query more than 5 tags");
        }
        Ok(Some(if any { TagFilter::Any(tags) } else { TagFilter::All(tags) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    #[test]
    fn sizes() {
        assert_eq!(query("").size().ok(), Some(100));
        assert_eq!(query("size=1000").size().ok(), Some(1000));
        for bad in ["x", "0", "1001", "1.5", "", "-1", "nan", "inf"] {
            assert_eq!(query(&format!("size={bad}")).size().err().map(|e| e.status()), Some(400), "{bad}");
        }
    }

    #[test]
    fn tag_filters() {
        let filter = |text| query(text).tags().ok().flatten();
        assert_eq!(filter("tags=a,b"), Some(TagFilter::All(vec!["a".into(), "b".into()])));
        assert_eq!(filter("tags=a/b"), Some(TagFilter::Any(vec!["a".into(), "b".into()])));
        assert_eq!(filter("tags=a"), Some(TagFilter::All(vec!["a".into()])));
        assert_eq!(filter("a=b"), None);
        for bad in ["tags=", "tags", "tags=a,b/c", "tags=a,,b", "tags=a,b,c,d,e,f", "tags=a&tags=b"] {
            assert_eq!(query(bad).tags().err().map(|e| e.status()), Some(400), "{bad}");
        }
    }

    #[test]
    fn switches() {
        assert!(query("flatten_errors=1").is_on("flatten_errors"));
        assert!(query("flatten_errors=Yes").is_on("flatten_errors"));
        assert!(!query("flatten_errors=0").is_on("flatten_errors"));
    }
}
