//! Where the values of settings come from: a file, the environment, the command line; later ones win.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::catalog::vault::{Vaults, is_reference};
use crate::settings::{IGNORED, TABLE};

/// Values given on the command line: name to text.
pub type Overrides = BTreeMap<String, String>;

/// What settings are read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file of `-c`; it must exist.
    pub file: Option<PathBuf>,
    /// Files tried in order when there is no `-c`; none of them needs to exist.
    pub default_files: Vec<PathBuf>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    pub overrides: Overrides,
}

/// Texts by canonical name, and the names that somebody gave.
pub struct Texts {
    pub values: BTreeMap<String, String>,
    pub given: BTreeSet<String>,
}

impl Sources {
    /// The sources of a process: `-c`, else the usual places; its environment; `overrides`.
    pub fn of_process(file: Option<PathBuf>, overrides: Overrides) -> Self {
        Self {
            file,
            default_files: ["/etc/troop/troop.conf", "/etc/troop.conf", "/etc/kong/kong.conf", "/etc/kong.conf"].map(PathBuf::from).into(),
            environment: std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect(),
            overrides,
        }
    }

    /// The file that is read.
    pub fn chosen_file(&self) -> Option<&PathBuf> {
        self.file.as_ref().or_else(|| self.default_files.iter().find(|path| path.is_file()))
    }

    pub(super) fn texts(&self, errors: &mut Vec<String>) -> Texts {
        let mut texts = Texts { values: BTreeMap::new(), given: BTreeSet::new() };
        if let Some(path) = self.chosen_file() {
            match std::fs::read_to_string(path) {
                Ok(text) => parse_file(&text).into_iter().for_each(|(name, value)| texts.put(&name, value)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => errors.push(format!("no file at: {}", path.display())),
                Err(e) => errors.push(format!("could not read {}: {e}", path.display())),
            }
        }
        for prefix in ["KONG_", "TROOP_"] {
            for (variable, value) in &self.environment {
                if let Some(name) = variable.strip_prefix(prefix) {
                    texts.put(&name.to_ascii_lowercase(), value.trim().to_owned());
                }
            }
        }
        for (name, value) in &self.overrides {
            texts.put(name, value.trim().to_owned());
        }
        self.resolve_references(&mut texts, errors);
        texts
    }

    /// Replaces `{vault://env/...}` by what it stands for.
    fn resolve_references(&self, texts: &mut Texts, errors: &mut Vec<String>) {
        let variables = self.environment.clone();
        let environment = move |name: &str| variables.get(name).cloned();
        let vaults = Vaults::new(&environment);
        for (name, text) in texts.values.iter_mut().filter(|(_, text)| is_reference(text)) {
            match vaults.resolve(text) {
                Ok(value) => *text = value,
                Err(e) => errors.push(format!("failed to dereference '{text}': {e} for config option '{name}'")),
            }
        }
    }
}

impl Texts {
    /// An empty value means: not set, not even by default.
    fn put(&mut self, name: &str, value: String) {
        let name = canonical(name);
        self.given.insert(name.to_owned());
        let value = if value == "NONE" { String::new() } else { value };
        self.values.insert(name.to_owned(), value);
    }
}

/// The name under which the table has a setting.
fn canonical(name: &str) -> &str {
    TABLE.iter().find(|s| s.aliases.contains(&name)).map_or(name, |s| s.name)
}

/// Whether a name is that of a directive for nginx, or of anything else that Kong lets through.
pub fn is_directive(name: &str) -> bool {
    name.starts_with("nginx_") || IGNORED.iter().any(|i| i.name == name)
}

/// `key = value` lines; `#` starts a comment, `\#` is the character.
pub fn parse_file(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for line in text.lines() {
        let line = without_comment(line);
        if let Some((name, value)) = line.split_once('=')
            && !name.trim().is_empty()
        {
            pairs.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    pairs
}

fn without_comment(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'#') => {
                chars.next();
                kept.push('#');
            }
            '#' => break,
            c => kept.push(c),
        }
    }
    kept
}
