//! The five operations on each part of a request.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Pair, Rendered};
use crate::plugin::form::{Multipart, Part};
use crate::plugin::{Exchange, query};

/// Headers that frame the message or name its recipient: no operation but `replace` of Host touches them.
const KEPT: &[&str] = &["host", "content-length", "transfer-encoding"];

impl Rendered<'_> {
    pub fn apply_to_headers(&self, x: &mut Exchange) {
        let headers = &mut x.request.headers;
        let kept = |name: &str| KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name));
        for name in self.remove.iter().filter(|name| !kept(name)) {
            headers.remove(name);
        }
        for (old, new) in valued(&self.rename).filter(|(old, new)| !kept(old) && !kept(new) && !old.eq_ignore_ascii_case(new)) {
            let values: Vec<_> = headers.get_all(old).map(<[u8]>::to_vec).collect();
            if !values.is_empty() {
                headers.remove(old);
                headers.remove(new);
                for value in values {
                    headers.append(new, value);
                }
            }
        }
        for (name, value) in valued(&self.replace) {
            let value = in_a_header(value);
            if name.eq_ignore_ascii_case("host") {
                x.upstream.host_header = Some(value.into_owned());
            } else if !kept(name) && headers.contains(name) {
                headers.set(name, value.as_bytes());
            }
        }
        for (name, value) in valued(&self.add).filter(|(name, _)| !kept(name)) {
            if !headers.contains(name) {
                headers.append(name, in_a_header(value).as_bytes());
            }
        }
        for (name, value) in valued(&self.append).filter(|(name, _)| !kept(name)) {
            headers.append(name, in_a_header(value).as_bytes());
        }
    }

    /// Whether anything was done.
    pub fn apply_to_arguments(&self, arguments: &mut Arguments) -> bool {
        let before = arguments.0.clone();
        for name in self.remove {
            arguments.remove(name);
        }
        for (old, new) in valued(&self.rename).filter(|(old, new)| old != new) {
            if arguments.contains(old) {
                arguments.remove(new);
                for argument in arguments.0.iter_mut().filter(|(name, _)| name == old) {
                    new.clone_into(&mut argument.0);
                }
            }
        }
        for (name, value) in &self.replace {
            if arguments.contains(name) {
                arguments.remove(name);
                arguments.0.extend(value.as_ref().map(|value| ((*name).to_owned(), Some(value.clone().into_owned()))));
            }
        }
        for (name, value) in valued(&self.add) {
            if !arguments.contains(name) {
                arguments.push(name, value);
            }
        }
        for (name, value) in valued(&self.append) {
            // A name without a value becomes one with this value.
            arguments.0.retain(|(n, v)| n != name || v.is_some());
            arguments.push(name, value);
        }
        arguments.0 != before
    }

    /// Whether anything was done.
    pub fn apply_to_json(&self, members: &mut Map<String, Value>) -> bool {
        let before = members.clone();
        let is_there = |members: &Map<String, Value>, name: &str| members.get(name).is_some_and(|value| *value != Value::Bool(false));
        for name in self.remove {
            members.remove(name);
        }
        for (old, new) in valued(&self.rename) {
            if let Some(value) = members.remove(old) {
                members.insert(new.to_owned(), value);
            }
        }
        for (name, value) in valued(&self.replace) {
            if is_there(members, name) {
                members.insert(name.to_owned(), value.into());
            }
        }
        for (name, value) in valued(&self.add) {
            if !is_there(members, name) {
                members.insert(name.to_owned(), value.into());
            }
        }
        for (name, value) in valued(&self.append) {
            let old = members.entry(name).or_insert(Value::Null);
            match old {
                Value::Array(list) => list.push(value.into()),
                Value::String(_) => *old = Value::Array(vec![old.take(), value.into()]),
                Value::Object(_) => {}
                _ => *old = Value::Array(vec![value.into()]),
            }
        }
        *members != before
    }

    /// Whether anything was done. `append` has no meaning here.
    pub fn apply_to_multipart(&self, form: &mut Multipart) -> bool {
        let before = form.parts.clone();
        let is_there = |form: &Multipart, name: &str| form.parts.iter().any(|part| part.name == name);
        let remove = |form: &mut Multipart, name: &str| form.parts.retain(|part| part.name != name);
        for (old, new) in valued(&self.rename).filter(|(old, new)| old != new) {
            let Some(part) = form.parts.iter().find(|part| part.name == old) else { continue };
            let part = Part { body: part.body.clone(), ..Part::field(new, "") };
            remove(form, old);
            remove(form, new);
            form.parts.push(part);
        }
        for name in self.remove {
            remove(form, name);
        }
        for (name, value) in valued(&self.replace) {
            if is_there(form, name) {
                remove(form, name);
                form.parts.push(Part::field(name, value));
            }
        }
        for (name, value) in valued(&self.add) {
            if !is_there(form, name) {
                form.parts.push(Part::field(name, value));
            }
        }
        form.parts != before
    }
}

/// The pairs that have a value.
fn valued<'p>(pairs: &'p [Pair<'_>]) -> impl Iterator<Item = (&'p str, &'p str)> {
    pairs.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)))
}

/// The value without what would end the header's line: a template may have brought it in.
fn in_a_header(value: &str) -> Cow<'_, str> {
    if value.contains(['\r', '\n', '\0']) {
        Cow::Owned(value.replace('\r', "%0D").replace('\n', "%0A").replace('\0', "%00"))
    } else {
        Cow::Borrowed(value)
    }
}

/// Decoded arguments of a query or a form.
#[derive(Clone, Debug, Default)]
pub struct Arguments(pub Vec<(String, Option<String>)>);

impl Arguments {
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// As a query, sorted by name.
    pub fn encode(mut self) -> String {
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        let encoded = self.0.iter().map(|(name, value)| match value {
            Some(value) => format!("{}={}", query::encode(name), query::encode(value)),
            None => query::encode(name).into_owned(),
        });
        encoded.collect::<Vec<_>>().join("&")
    }

    fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), Some(value.to_owned())));
    }
}
