//! House rules that the compiler cannot see: which module may name which, how long a file may be, what no line may hold, that
//! documents lead to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use troop::plugins::PLUGINS;
use troop::settings::TABLE;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the project whose names end so, with their text.
fn files(folder: &str, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                // what is built, and what version control and editors keep
                if name != "target" && (name == ".ci" || name == ".config" || !name.starts_with('.')) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending))
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push((path.strip_prefix(root()).expect("below the root").to_owned(), text));
            }
        }
    }
    found
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    files(folder, &[".rs"])
}

/// The sources of `src/` that are not tests: module, file, code without comments.
fn modules() -> Vec<(String, PathBuf, String)> {
    let test = |path: &Path| {
        let name = |c: Component| c.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        path.components().map(name).any(|name| matches!(name.as_str(), "tests" | "testing") || name.ends_with("_tests"))
    };
    let module = |path: &Path| {
        let second = path.components().nth(1).map(|c| c.as_os_str().to_string_lossy().into_owned());
        second.unwrap_or_default().trim_end_matches(".rs").to_owned()
    };
    let sources = sources("src").into_iter().filter(|(path, _)| !test(path));
    sources.map(|(path, text)| (module(&path), code(&text), path)).map(|(module, code, path)| (module, path, code)).collect()
}

/// A file without its comments and without the items that are marked `#[cfg(test)]`.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.trim() != "#[cfg(test)]" {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let item = lines.find(|line| !line.trim_start().starts_with("#[")).unwrap_or_default();
        if !item.ends_with(';') && !item.ends_with('}') {
            lines.find(|line| *line == end);
        }
    }
    out
}

/// The identifiers that follow `before` in a line.
fn following<'a>(line: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    line.split(before).skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

/// The modules of `src/` and which others each may name outside of its tests. docs/ARCHITECTURE.md explains them and has the
/// same table.
#[rustfmt::skip] // one a line
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("clock", &[][..]),
        ("http", &[]),
        ("model", &[][..]),
        ("flat_map", &[]),
        ("catalog", &["flat_map", "model"]),
        ("store", &["catalog", "model"]),
        ("declarative", &["catalog", "model"]),
        ("router", &["flat_map", "model", "http", "plugin"]),
        ("balancer", &["model", "http"]),
        ("plugin", &["clock", "model", "http"]),
        ("plugins", &["plugin", "model", "http"]),
        ("snapshot", &["clock", "catalog", "router", "balancer", "plugin", "plugins", "model", "http"]),
        ("settings", &["catalog", "router"]),
        ("proxy", &["clock", "snapshot", "plugin", "balancer", "router", "http", "settings"]),
        ("actors", &["store", "catalog", "snapshot", "balancer", "declarative", "plugin", "model"]),
        ("admin", &["catalog", "declarative", "plugin", "plugins", "actors", "balancer", "model", "settings"]),
        ("node", &["actors", "admin", "catalog", "declarative", "model", "plugin", "plugins", "proxy", "router", "settings", "snapshot", "store"]),
        ("cli", &["actors", "catalog", "declarative", "model", "node", "settings", "store"]),
    ])
}

#[test]
fn modules_name_only_those_that_they_may() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (module, path, code) in modules() {
        let may = match module.as_str() {
            // the library's table of contents and the binary
            "lib" | "main" => continue,
            module => allowed.get(module).unwrap_or_else(|| panic!("{module} is not in the table of modules")),
        };
        for line in code.lines() {
            assert!(!line.contains("crate::{"), "{}: one import a module, so that it can be found: {line}", path.display());
            for named in following(line, "crate::") {
                if named != module && allowed.contains_key(named) && !may.contains(&named) {
                    wrong.push(format!("{}: {module} names {named}: {}", path.display(), line.trim()));
                }
            }
        }
        let deepest = climbs(&code);
        assert!(deepest < depth(&path), "{} leaves its module by super: write crate::", path.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How many modules a file is below the root of the library.
fn depth(path: &Path) -> usize {
    let parts = path.components().count() - 1;
    if path.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// The longest chain of `super::`.
fn climbs(code: &str) -> usize {
    (1..).take_while(|n| code.contains(&"super::".repeat(*n))).last().unwrap_or(0)
}

/// The crate of the cluster is named by who brings it to the node, shows it, and starts it. It knows nothing of the node.
#[test]
fn the_cluster_is_named_by_few() {
    let may = ["actors", "admin", "cli", "node"];
    let names = |line: &str| line.starts_with("use cluster::") || line.contains("::cluster::") && !line.contains("crate::");
    for (module, path, code) in modules() {
        let named = code.lines().find(|line| names(line)).filter(|_| !may.contains(&module.as_str()));
        assert_eq!(named, None, "{}", path.display());
    }
    for (path, text) in sources("cluster") {
        assert!(!text.contains("troop::"), "{} knows the node", path.display());
    }
}

/// No plugin names another: what several need is in `src/plugin/`.
#[test]
fn plugins_do_not_know_each_other() {
    for (module, path, code) in modules() {
        if module != "plugins" || path.ends_with("plugins/mod.rs") {
            continue;
        }
        let own = path.components().nth(2).map(|c| c.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()).unwrap_or_default();
        for line in code.lines() {
            let other = following(line, "crate::plugins::").find(|named| *named != own);
            assert_eq!(other, None, "{}: {line}", path.display());
        }
        assert!(climbs(&code) < depth(&path) - 1, "{} leaves its plugin by super", path.display());
    }
}

/// What is pure takes values and returns values; what the proxied path is made of takes no lock; every queue has an end.
#[test]
fn modules_use_only_what_they_may_of_libraries() {
    const INPUT_AND_OUTPUT: &[&str] =
        &["actix", "tokio::net", "tokio::fs", "tokio::spawn", "spawn_local", "spawn_blocking", "std::fs", "std::net::Tcp", "redb::"];
    let rules: [(&[&str], &[&str], &str); 5] = [
        (&["http", "model", "catalog", "declarative", "router", "snapshot", "balancer"], INPUT_AND_OUTPUT, "does no input and output"),
        (&["proxy", "router", "snapshot", "http"], &["Mutex", "RwLock", "Condvar"], "takes no lock"),
        (&["proxy", "plugins", "plugin", "snapshot", "balancer", "router"], &["actix::", "actix_web::"], "knows no actor"),
        (&["actors", "cli", "node", "admin", "proxy"], &["redb::"], "does not know how rows are stored"),
        (
            &["actors", "admin", "balancer", "catalog", "cli", "node", "plugin", "plugins", "proxy", "snapshot", "store"],
            &["unbounded_channel", "::unbounded(", "std::sync::mpsc"],
            "has only queues with an end",
        ),
    ];
    // locked when a worker starts or ends, and by those who ask for totals
    const OUTSIDE_OF_REQUESTS: &str = "src/proxy/server/counters.rs";
    let mut wrong = Vec::new();
    for (module, path, code) in modules().into_iter().filter(|(_, path, _)| *path != Path::new(OUTSIDE_OF_REQUESTS)) {
        for (_, never, why) in rules.iter().filter(|(modules, _, _)| modules.contains(&module.as_str())) {
            for line in code.lines().filter(|line| never.iter().any(|word| line.contains(word))) {
                wrong.push(format!("{}: {module} {why}: {}", path.display(), line.trim()));
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

/// Nobody else has the directories of the machine that a file was written on.
#[test]
fn no_file_names_a_place_on_one_machine() {
    let places = ["work", "root", "home", "Users"].map(|name| format!("/{name}/"));
    let endings = [".rs", ".md", ".toml", ".yml", ".yaml", ".conf", ".service", ".sh", ".py", ".json", ".txt", "test"];
    for (path, text) in files("", &endings) {
        for (number, line) in text.lines().enumerate() {
            assert!(!places.iter().any(|place| line.contains(place.as_str())), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

/// Every file of `src/plugins/` is in the table, every plugin's name is that of its file, and README.md names it.
#[test]
fn the_table_of_plugins_is_complete() {
    let table = std::fs::read_to_string(root().join("src/plugins/mod.rs")).expect("the table");
    for entry in std::fs::read_dir(root().join("src/plugins")).expect("the plugins").flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        assert!(name == "mod" || table.contains(&format!("mod {name};")), "{name} is not in the table");
    }
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for plugin in PLUGINS {
        let file = plugin.name.replace('-', "_");
        let there = [format!("src/plugins/{file}.rs"), format!("src/plugins/{file}/mod.rs")].iter().any(|f| root().join(f).exists());
        assert!(there, "{} is not in a file of its name", plugin.name);
        assert!(readme.contains(&format!("`{}`", plugin.name)), "README.md does not name {}", plugin.name);
    }
}

/// A setting that no code uses is marked `[idle]` in the table, and what is marked is at most checked.
#[test]
fn settings_are_used_or_said_to_be_idle() {
    let (within, outside): (Vec<_>, Vec<_>) =
        modules().into_iter().filter(|(_, path, _)| !path.ends_with("settings/table.rs")).partition(|(module, _, _)| module == "settings");
    let names = |of: &[(String, PathBuf, String)], before: &str| -> BTreeSet<String> {
        of.iter().flat_map(|(_, _, code)| code.lines()).flat_map(|line| following(line, before)).map(str::to_owned).collect()
    };
    let mut checked = names(&within, "settings.");
    checked.extend(names(&within, "self."));
    let used = names(&outside, "settings.");
    for setting in TABLE {
        let (used, checked) = (used.contains(setting.name), checked.contains(setting.name));
        assert!(!(setting.idle && used), "{} is used: it is no longer [idle] in src/settings/table.rs", setting.name);
        assert!(setting.idle || used || checked, "nothing uses {}: mark it [idle] in src/settings/table.rs", setting.name);
    }
}

/// All documents: what people read, not what tests compare with.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut all: BTreeMap<_, _> = files("docs", &[".md"]).into_iter().collect();
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        all.insert(name.into(), std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}")));
    }
    all
}

/// The text of a document without its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

/// What a link leads to, seen from the root of the project; nothing for one that leaves the project.
fn target(from: &Path, link: &str) -> Option<(PathBuf, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor.to_owned())));
    let mut at = if path.is_empty() { from.to_owned() } else { from.parent().expect("a file is in a folder").to_owned() };
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => assert!(at.pop(), "{}: {link} leaves the project", from.display()),
            Component::Normal(name) => at.push(name),
            _ => {}
        }
    }
    Some((at, anchor))
}

/// The anchors of a document's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim().to_lowercase());
    headings
        .map(|h| h.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect())
        .collect()
}

#[test]
fn documents_lead_to_each_other() {
    let documents = documents();
    let mut seen = BTreeSet::new();
    let mut next = vec![PathBuf::from("README.md"), PathBuf::from("docs/README.md")];
    while let Some(path) = next.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let Some(text) = documents.get(&path) else { continue };
        for link in prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next()) {
            let Some((to, anchor)) = target(&path, link) else { continue };
            assert!(root().join(&to).exists(), "{}: {link} leads nowhere", path.display());
            if let (Some(anchor), Some(text)) = (anchor, documents.get(&to)) {
                assert!(anchors(text).contains(&anchor), "{}: {link} leads to no heading", path.display());
            }
            next.push(to);
        }
    }
    let lost: Vec<_> = documents.keys().filter(|path| !seen.contains(*path)).collect();
    assert!(lost.is_empty(), "nothing leads from README.md or docs/README.md to {lost:?}");
}

/// A file that a document names is there.
#[test]
fn documents_name_files_that_exist() {
    let folders = ["src/", "tests/", "config/", "docs/", "crates/", ".ci/"];
    for (path, text) in documents() {
        for name in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let name = name.split([' ', ':']).next().unwrap_or_default();
            if folders.iter().any(|folder| name.starts_with(folder)) && !name.contains(['<', '*', '{']) {
                assert!(root().join(name).exists(), "{} names {name}, which is not there", path.display());
            }
        }
    }
}
