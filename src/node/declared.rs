//! The configuration that a node without a database begins with: `declarative_config`, `declarative_config_string`, or what it
//! had when it stopped.

use std::path::Path;

use crate::actors::catalog::load;
use crate::catalog::{Catalog, Change, Schemas, WriteError};
use crate::declarative;
use crate::model::ENTITIES;
use crate::node::StartError;
use crate::settings::Settings;
use crate::store::Store;

/// Directory in the prefix with what `POST /config` last gave. Apart from the store of a node with a database, so that neither
/// mode finds the other's rows.
pub const KEPT: &str = "declared";

/// What a document made: the catalog, and the hash that names the text.
pub struct Declared {
    pub catalog: Catalog,
    pub hash: String,
}

/// Reads the document that the settings name, which takes the place of what was kept. Without one, what was kept stays.
pub fn declared(settings: &Settings, schemas: &Schemas, store: &dyn Store) -> Result<Declared, StartError> {
    let kept = load(store)?;
    let (path, text) = match (&settings.declarative_config, &settings.declarative_config_string) {
        (Some(path), _) => (path.display().to_string(), read(path)?),
        (None, Some(text)) => ("declarative_config_string".to_owned(), text.clone()),
        (None, None) => {
            let rows: Vec<_> = ENTITIES.iter().flat_map(|entity| kept.rows(entity.name)).collect();
            let hash = hash(&kept, &declarative::export(rows));
            return Ok(Declared { catalog: kept, hash });
        }
    };
    let wrong = |error: declarative::DeclarativeError| StartError::Declarative { path: path.clone(), errors: error.listing() };
    let document = declarative::parse(&text, &schemas.context()).map_err(wrong)?;
    for warning in &document.warnings {
        tracing::warn!(path, warning, "declarative configuration");
    }
    tracing::info!(path, rows = document.rows.len(), "declarative configuration read");
    let refused = |error: WriteError| StartError::Declarative { path: path.clone(), errors: error.message };
    let plan = kept.plan(Change::Replace(document.rows), &schemas.context()).map_err(refused)?;
    store.commit(&plan.edits)?;
    let hash = hash(&plan.next, &text);
    Ok(Declared { catalog: plan.next, hash })
}

fn hash(catalog: &Catalog, text: &str) -> String {
    if catalog.is_empty() { declarative::EMPTY_HASH.to_owned() } else { declarative::hash(text) }
}

fn read(path: &Path) -> Result<String, StartError> {
    let refused = |errors: String| StartError::Declarative { path: path.display().to_string(), errors };
    if !path.extension().is_some_and(|ending| ["yml", "yaml", "json"].iter().any(|known| ending == *known)) {
        return Err(refused("unknown file type: its name must end with .yml, .yaml or .json".to_owned()));
    }
    std::fs::read_to_string(path).map_err(|error| refused(format!("cannot read the file: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Embedded, Memory};

    fn start(text: &str, name: &str) -> Result<Declared, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("a readable path");
        let settings = Settings::from_pairs(&[("database", "off"), ("declarative_config", path)]).expect("good settings");
        let schemas = Schemas { choose: Arc::new(|_, _| None), features: Vec::new() };
        declared(&settings, &schemas, &Memory).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_declared_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let schemas = Schemas { choose: Arc::new(|_, _| None), features: Vec::new() };
        let start = |pairs: &[(&str, &str)]| {
            let settings = Settings::from_pairs(pairs).expect("good settings");
            let store = Embedded::open(folder.path()).expect("a store");
            declared(&settings, &schemas, &store).map(|d| (d.catalog.len("services"), d.hash)).expect("starts")
        };
        let text = r#"{"_format_version": "3.0", "services": [{"name": "s", "host": "h"}]}"#;
        assert_eq!(start(&[("database", "off")]), (0, declarative::EMPTY_HASH.to_owned()));
        assert_eq!(start(&[("database", "off"), ("declarative_config_string", text)]), (1, declarative::hash(text)));
        assert_eq!(start(&[("database", "off")]).0, 1);
        let empty = r#"{"_format_version": "3.0"}"#;
        assert_eq!(start(&[("database", "off"), ("declarative_config_string", empty)]).0, 0);
        assert_eq!(start(&[("database", "off")]).0, 0);
    }

    #[test]
    fn files() {
        let text = "_format_version: '3.0'\nservices:\n- name: s\n  host: h.test\n";
        let declared = start(text, "kong.yml").expect("a good file");
        assert_eq!(declared.catalog.len("services"), 1);
        assert_eq!(declared.hash, declarative::hash(text));
        let wrong = start("_format_version: '3.0'\nservices: [{name: s}]\n", "kong.yml").err().expect("a bad file");
        assert!(wrong.ends_with("in 'services':\n  - in entry 1 of 'services':\n    in 'host': required field missing"), "{wrong}");
        assert!(wrong.starts_with("error parsing declarative config file "), "{wrong}");
        assert!(start(text, "kong.txt").is_err_and(|error| error.contains("unknown file type")));
    }
}
