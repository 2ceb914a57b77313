//! `GET /schemas/{entity}` of every entity, as a file each. `UPDATE_GOLDEN=1` writes them anew.

use std::path::Path;

use schema::{Context, describe};
use troop::model;

#[test]
fn entities() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schemas");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    for features in [&[][..], &[model::EXPRESSIONS][..]] {
        let context = Context { features, ..Context::bare() };
        for entity in model::ENTITIES.iter() {
            if !features.is_empty() && entity.name != "routes" {
                continue;
            }
            let suffix = features.first().map_or(String::new(), |f| format!(".{f}"));
            let path = folder.join(format!("{}{suffix}.json", entity.name));
            let described = serde_json::to_string_pretty(&describe::entity(entity, &context)).unwrap() + "\n";
            if update {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, described).unwrap();
            } else if std::fs::read_to_string(&path).unwrap_or_default() != described {
                differing.push(path);
            }
        }
    }
    assert!(differing.is_empty(), "schemas differ from their files: {differing:?}");
}
