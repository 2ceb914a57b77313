//! The configuration that a node without a database begins with: `declarative_config`, or `declarative_config_string`.

use std::path::Path;

use crate::catalog::{Catalog, Schemas};
use crate::declarative;
use crate::node::StartError;
use crate::settings::Settings;

/// What a document made: the catalog, and the hash that names the text.
pub struct Declared {
    pub catalog: Catalog,
    pub hash: String,
}

/// Reads the document that the settings name; without one the configuration is empty.
pub fn declared(settings: &Settings, schemas: &Schemas) -> Result<Declared, StartError> {
    let (path, text) = match (&settings.declarative_config, &settings.declarative_config_string) {
        (Some(path), _) => (path.display().to_string(), read(path)?),
        (None, Some(text)) => ("declarative_config_string".to_owned(), text.clone()),
        (None, None) => return Ok(Declared { catalog: Catalog::default(), hash: declarative::EMPTY_HASH.to_owned() }),
    };
    let wrong = |error: declarative::DeclarativeError| StartError::Declarative { path: path.clone(), errors: error.listing() };
    let document = declarative::parse(&text, &schemas.context()).map_err(wrong)?;
    for warning in &document.warnings {
        tracing::warn!(path, warning, "declarative configuration");
    }
    tracing::info!(path, rows = document.rows.len(), "declarative configuration read");
    let hash = if document.rows.is_empty() { declarative::EMPTY_HASH.to_owned() } else { declarative::hash(&text) };
    Ok(Declared { catalog: Catalog::of(document.rows), hash })
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

    fn start(text: &str, name: &str) -> Result<Declared, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("a readable path");
        let settings = Settings::from_pairs(&[("database", "off"), ("declarative_config", path)]).expect("good settings");
        let schemas = Schemas { choose: Arc::new(|_, _| None), features: Vec::new() };
        declared(&settings, &schemas).map_err(|error| error.to_string())
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
