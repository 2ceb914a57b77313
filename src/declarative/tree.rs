//! A document -> its entities and how they nest.

use schema::{EntitySchema, Object, Value};
use serde_json::json;

use crate::model::ENTITIES;

/// Top-level lists of Kong's that say nothing here: there is one workspace, and the cluster's parameters are Kong's own.
const IGNORED: &[&str] = &["workspaces", "parameters"];
const FORMATS: &[&str] = &["1.1", "2.1", "3.0"];

/// The entities of a document, each parent before what is nested in it.
pub struct Tree {
    pub items: Vec<Item>,
    /// What is wrong outside of entities.
    pub problems: Object,
    /// Entities that are no tables: where they stand.
    pub strays: Vec<(Path, Value)>,
    /// Whether paths of routes are in the way of writing of before Kong 3.0, without `~` before regular expressions.
    old_paths: bool,
    /// Whether values are changed on their way in (password hashes).
    pub transform: bool,
}

/// Lists and places in them (from 0), outermost first.
pub type Path = Vec<(String, usize)>;

/// An entity as it is written.
pub struct Item {
    pub entity: &'static EntitySchema,
    /// Its own fields, without what is nested in it and without remarks.
    pub input: Object,
    /// What is wrong with its remarks and with the lists nested in it.
    pub problems: Object,
    /// The entity in which it is nested, and its own foreign key that this implies.
    pub parent: Option<(usize, &'static str)>,
    pub path: Path,
}

impl Tree {
    pub fn read(mut document: Object) -> Self {
        let mut tree = Self { items: Vec::new(), problems: Object::new(), strays: Vec::new(), old_paths: false, transform: true };
        tree.read_meta(&mut document);
        for entity in ENTITIES.iter() {
            if let Some(list) = document.remove(entity.name) {
                let mut problems = Object::new();
                tree.read_list(entity, list, None, &Vec::new(), &mut problems);
                tree.problems.extend(problems);
            }
        }
        for name in document.keys().filter(|name| !IGNORED.contains(&name.as_str())) {
            tree.problems.insert(name.clone(), "unknown field".into());
        }
        tree
    }

    fn read_meta(&mut self, document: &mut Object) {
        let problem = match document.remove("_format_version") {
            None | Some(Value::Null) => Some("required field missing".to_owned()),
            Some(Value::String(format)) if FORMATS.contains(&format.as_str()) => {
                self.old_paths = format != "3.0";
                None
            }
            Some(Value::String(_)) => Some(format!("expected one of: {}", FORMATS.join(", "))),
            Some(_) => Some("expected a string".to_owned()),
        };
        if let Some(problem) = problem {
            self.problems.insert("_format_version".to_owned(), problem.into());
        }
        match document.remove("_transform") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(transform)) => self.transform = transform,
            Some(_) => drop(self.problems.insert("_transform".to_owned(), "expected a boolean".into())),
        }
        remarks(document, &mut self.problems);
    }

    fn read_list(
        &mut self,
        entity: &'static EntitySchema,
        list: Value,
        parent: Option<(usize, &'static str)>,
        place: &Path,
        problems: &mut Object,
    ) {
        let list = match list {
            Value::Null => return,
            Value::Array(list) => list,
            Value::Object(table) if table.is_empty() => return,
            _ => return drop(problems.insert(entity.name.to_owned(), "expected an array".into())),
        };
        for (at, value) in list.into_iter().enumerate() {
            let mut path = place.clone();
            path.push((entity.name.to_owned(), at));
            let value = match value {
                Value::Object(input) => input,
                // Names alone stand for the SNIs of a certificate, as in the Admin API.
                Value::String(name) if entity.name == "snis" && parent.is_some() => Object::from_iter([("name".to_owned(), name.into())]),
                _ => {
                    self.strays.push((path, "expected a record".into()));
                    continue;
                }
            };
            self.read_item(entity, value, parent, path);
        }
    }

    fn read_item(&mut self, entity: &'static EntitySchema, mut input: Object, parent: Option<(usize, &'static str)>, path: Path) {
        let mut problems = Object::new();
        remarks(&mut input, &mut problems);
        if self.old_paths && entity.name == "routes" {
            convert_paths(&mut input);
        }
        let nested: Vec<_> = children(entity).filter_map(|(child, key)| input.remove(child.name).map(|list| (child, key, list))).collect();
        let at = self.items.len();
        self.items.push(Item { entity, input, problems: Object::new(), parent, path: path.clone() });
        for (child, key, list) in nested {
            self.read_list(child, list, Some((at, key)), &path, &mut problems);
        }
        self.items[at].problems = problems;
    }
}

/// Takes `_comment` and `_ignore` out.
fn remarks(table: &mut Object, problems: &mut Object) {
    if table.remove("_comment").is_some_and(|v| !v.is_string() && !v.is_null()) {
        problems.insert("_comment".to_owned(), "expected a string".into());
    }
    if table.remove("_ignore").is_some_and(|v| !v.is_array() && !v.is_null() && v != json!({})) {
        problems.insert("_ignore".to_owned(), "expected an array".into());
    }
}

/// Entities that may be nested in one of this kind, each with its foreign key.
fn children(parent: &'static EntitySchema) -> impl Iterator<Item = (&'static EntitySchema, &'static str)> {
    let key =
        move |child: &&'static EntitySchema| child.record.foreign_keys().find(|(_, to)| *to == parent.name).map(|(field, _)| field.name);
    let field = |child: &EntitySchema| parent.record.get(child.name).is_some_and(|f| !f.transient);
    ENTITIES.iter().copied().filter(move |child| !field(child)).filter_map(move |child| key(&child).map(|key| (child, key)))
}

/// Puts `~` before paths that are regular expressions by their characters, as they were written before Kong 3.0.
fn convert_paths(route: &mut Object) {
    let Some(Value::Array(paths)) = route.get_mut("paths") else {
        return;
    };
    for path in paths {
        if let Value::String(path) = path
            && !path.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_~/%".contains(&c))
        {
            path.insert(0, '~');
        }
    }
}
