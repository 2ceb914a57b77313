//! House rules that the compiler cannot see: which module may name which, how long a file may be, what no line may hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file is text");
                found.push((path.strip_prefix(root()).expect("below the root").to_owned(), text));
            }
        }
    }
    found
}

/// The modules of `src/` and which others each may name outside of its tests. docs/ARCHITECTURE.md explains them.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("http", &[][..]),
        ("model", &[][..]),
        ("catalog", &["model"]),
        ("store", &["catalog", "model"]),
        ("declarative", &["catalog", "model"]),
        ("router", &["model", "http", "plugin"]),
        ("balancer", &["model", "http"]),
        ("plugin", &["model", "http"]),
        ("plugins", &["plugin", "model", "http"]),
        ("snapshot", &["catalog", "router", "balancer", "plugin", "plugins", "model", "http"]),
        ("proxy", &["snapshot", "plugin", "balancer", "router", "http", "settings"]),
        ("settings", &["catalog", "router"]),
        ("admin", &["catalog", "declarative", "plugin", "plugins", "actors", "balancer", "model", "settings"]),
        ("actors", &["store", "catalog", "snapshot", "balancer", "declarative", "plugin", "model"]),
    ])
}

#[test]
fn modules_name_only_those_that_they_may() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let module =
            path.components().nth(1).map(|c| c.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()).unwrap_or_default();
        let Some(may) = allowed.get(module.as_str()) else { continue };
        if path.components().any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "tests.rs" | "testing.rs"))) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for named in line.split("crate::").skip(1) {
                let named: String = named.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if named != module && allowed.contains_key(named.as_str()) && !may.contains(&named.as_str()) {
                    wrong.push(format!("{}: {module} names {named}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_800_lines() {
    let all = ["src", "crates", "tests"].into_iter().flat_map(sources);
    let long: Vec<_> = all.filter(|(_, text)| text.lines().count() > 800).map(|(path, _)| path).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn nothing_is_left_to_be_done() {
    let words = ["TO", "FIX"].map(|start| format!("{start}{}", if start == "TO" { "DO" } else { "ME" }));
    for (path, text) in ["src", "crates", "tests"].into_iter().flat_map(sources) {
        for (number, line) in text.lines().enumerate() {
            assert!(!words.iter().any(|w| line.contains(w.as_str())), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

/// Every file of `src/plugins/` is in the table, and every plugin's name is that of its file.
#[test]
fn the_table_of_plugins_is_complete() {
    let table = std::fs::read_to_string(root().join("src/plugins/mod.rs")).expect("the table");
    for entry in std::fs::read_dir(root().join("src/plugins")).expect("the plugins").flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        assert!(name == "mod" || table.contains(&format!("mod {name};")), "{name} is not in the table");
    }
    for plugin in troop::plugins::PLUGINS {
        let file = plugin.name.replace('-', "_");
        let there = [format!("src/plugins/{file}.rs"), format!("src/plugins/{file}/mod.rs")].iter().any(|f| root().join(f).exists());
        assert!(there, "{} is not in a file of its name", plugin.name);
    }
}
