//! Rows -> YAML text that says the same.

use std::sync::Arc;

use schema::{EntitySchema, Object, Value};

use super::scalar;
use crate::catalog::Row;
use crate::model::ENTITIES;

/// A flat document of all rows, parents before children, foreign keys as ids. Passwords are hashed already: `_transform: false`.
pub fn export<'a>(rows: impl IntoIterator<Item = &'a Arc<Row>>) -> String {
    let mut lists: Vec<(&EntitySchema, Vec<Object>)> = ENTITIES.iter().map(|entity| (*entity, Vec::new())).collect();
    for row in rows {
        if let Some((_, list)) = lists.iter_mut().find(|(entity, _)| entity.name == row.schema.name) {
            list.push(flat(row));
        }
    }
    let mut out = String::from("_format_version: '3.0'\n_transform: false\n");
    for (entity, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        out.push_str(entity.name);
        out.push_str(":\n");
        for row in list {
            write_item(&Value::Object(row), 0, &mut out);
        }
    }
    out
}

/// A row's body with foreign keys as bare ids, and what is left of its time.
fn flat(row: &Row) -> Object {
    let mut body = row.object();
    for (field, _) in row.schema.record.foreign_keys() {
        if let Some(Value::Object(key)) = body.get_mut(field.name) {
            let id = key.remove("id").unwrap_or_default();
            body.insert(field.name.to_owned(), id);
        }
    }
    if let Some(ttl) = row.ttl() {
        body.insert("ttl".to_owned(), ttl.into());
    }
    body
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// An item of a list, its dash at this depth.
fn write_item(value: &Value, depth: usize, out: &mut String) {
    indent(depth, out);
    out.push_str("- ");
    match value {
        Value::Object(table) if !table.is_empty() => {
            let mut fields = String::new();
            write_fields(table, depth + 1, &mut fields);
            out.push_str(fields.trim_start());
        }
        value => write_value(value, depth, out),
    }
}

fn write_fields(table: &Object, depth: usize, out: &mut String) {
    for (name, value) in table {
        indent(depth, out);
        write_line(name, out);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                write_fields(inner, depth + 1, out);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                list.iter().for_each(|item| write_item(item, depth, out));
            }
            value => {
                out.push(' ');
                write_value(value, depth, out);
            }
        }
    }
}

/// A value on the rest of a line.
fn write_value(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Null => out.push('~'),
        Value::String(text) => write_text(text, depth, out),
        // A list in a list is written in the way of JSON, which is YAML.
        value => out.push_str(&value.to_string()),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

fn write_text(text: &str, depth: usize, out: &mut String) {
    if is_block(text) {
        out.push_str(if text.ends_with('\n') { "|\n" } else { "|-\n" });
        for line in text.lines() {
            if !line.is_empty() {
                indent(depth + 1, out);
            }
            out.push_str(line);
            out.push('\n');
        }
    } else {
        write_line(text, out);
    }
}

/// A text on one line.
fn write_line(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
    } else if text.chars().any(|c| c.is_control() || c == '\u{feff}' || c == '\u{2028}' || c == '\u{2029}') {
        // JSON's escapes are among those of YAML.
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push_str(&format!("'{}'", text.replace('\'', "''")));
    }
}

/// Whether the text needs no quotes.
fn is_plain(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '_');
    let rest = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"/_.-+@".contains(&c));
    first && rest && matches!(scalar::plain(text), Value::String(_)) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether the text can stand line by line: a certificate, say.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
        && text.lines().all(|line| line == line.trim_end() && !line.contains(|c: char| c.is_control() || c == '\u{feff}'))
}
