//! `/consumers/{c}/acls/{a}` takes a group's name, which is unique for a consumer.

pub const NESTED_KEY: (&str, &str) = ("acls", "group");
