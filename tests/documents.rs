//! Documents that follow from the code: a page for each plugin, the configuration file. `UPDATE_GOLDEN=1` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use schema::{Field, Kind, Record, Rule};
use troop::plugin::{Descriptor, Phases};
use troop::plugins::PLUGINS;
use troop::settings::{IGNORED, Settings, Sources, TABLE};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares files with what they should hold, or writes them.
#[track_caller]
fn compare(wanted: &BTreeMap<PathBuf, String>) {
    let mut differing = Vec::new();
    for (path, text) in wanted {
        let path = root().join(path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder of the project")).expect("the project can be written");
            std::fs::write(&path, text).expect("the project can be written");
        } else if std::fs::read_to_string(&path).unwrap_or_default() != *text {
            differing.push(path);
        }
    }
    assert!(differing.is_empty(), "UPDATE_GOLDEN=1 writes these anew: {differing:?}");
}

#[test]
fn every_plugin_has_its_page() {
    let mut pages: BTreeMap<PathBuf, String> =
        PLUGINS.iter().map(|p| (Path::new("docs/plugins").join(format!("{}.md", p.name)), page(p))).collect();
    pages.insert("docs/plugins/README.md".into(), index());
    compare(&pages);
    for entry in std::fs::read_dir(root().join("docs/plugins")).expect("the pages").flatten() {
        let path = Path::new("docs/plugins").join(entry.file_name());
        assert!(pages.contains_key(&path), "{} is of no plugin", path.display());
    }
}

fn index() -> String {
    let mut out = String::from("# Plugins\n\nIn the order in which they run.\n\n| plugin | priority | what it does |\n|---|---|---|\n");
    let mut plugins: Vec<&Descriptor> = PLUGINS.iter().collect();
    plugins.sort_by(|a, b| b.priority.cmp(&a.priority).then(a.name.cmp(b.name)));
    for plugin in plugins {
        let does = documentation(plugin.name).lines().next().unwrap_or_default().to_owned();
        writeln!(out, "| [{name}]({name}.md) | {} | {does} |", plugin.priority, name = plugin.name).expect("a string");
    }
    out
}

/// The page of a plugin: what its file says of it, and its configuration.
fn page(plugin: &Descriptor) -> String {
    let mut out = format!("# {}\n\n{}\n", plugin.name, documentation(plugin.name).replace("\n# ", "\n## "));
    let phases = [
        (Phases::REWRITE, "rewrite"),
        (Phases::ACCESS, "access"),
        (Phases::HEADER_FILTER, "header_filter"),
        (Phases::BODY_FILTER, "body_filter"),
        (Phases::LOG, "log"),
    ];
    let phases: Vec<&str> = phases.iter().filter(|(phase, _)| plugin.phases.has(*phase)).map(|(_, name)| *name).collect();
    write!(
        out,
        "\n## When it runs\nPriority {}, phases {}, protocols {}.\n\n## Configuration\n",
        plugin.priority,
        phases.join(", "),
        plugin.protocols.join(", ")
    )
    .expect("a string");
    let mut rows = Vec::new();
    fields((plugin.config)(), "", &mut rows);
    if rows.is_empty() {
        out.push_str("There is nothing to configure.\n");
    } else {
        out.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
        rows.iter().for_each(|row| out.push_str(row));
    }
    out
}

/// The comment at the head of a plugin's file.
fn documentation(name: &str) -> String {
    let file = name.replace('-', "_");
    let folder = root().join("src/plugins");
    let text = std::fs::read_to_string(folder.join(format!("{file}.rs")))
        .or_else(|_| std::fs::read_to_string(folder.join(file).join("mod.rs")))
        .expect("a plugin has a file of its name");
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(!text.is_empty(), "{name} says nothing of itself");
    text
}

fn fields(record: &Record, prefix: &str, rows: &mut Vec<String>) {
    for field in &record.fields {
        let name = format!("{prefix}{}", field.name);
        let default = match &field.default {
            Some(value) => format!("`{value}`"),
            None if field.required && !matches!(field.kind, Kind::Record(_)) => "required".to_owned(),
            None => String::new(),
        };
        let meaning = field.doc.trim().replace('\n', " ").replace('|', "\\|");
        rows.push(format!("| `{name}` | {} | {} | {meaning} |\n", kind(field), default.replace('|', "\\|")));
        if let Kind::Record(inner) = &field.kind {
            fields(inner, &format!("{name}."), rows);
        }
    }
}

fn kind(field: &Field) -> String {
    let words = field.rules.iter().find_map(|rule| match rule {
        Rule::OneOf(words) => Some(words.iter().map(|w| w.to_string().replace('"', "`")).collect::<Vec<_>>().join(", ")),
        Rule::Between(low, high) => Some(format!("{} between {low} and {high}", plain(&field.kind))),
        _ => None,
    });
    match (&field.kind, words) {
        (_, Some(words)) => words,
        (Kind::Array(of), _) => format!("list of {}", kind(of)),
        (Kind::Set(of), _) => format!("set of {}", kind(of)),
        (Kind::Map { values, .. }, _) => format!("map to {}", kind(values)),
        (kind, None) => plain(kind).to_owned(),
    }
}

fn plain(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::Any => "any",
        Kind::Array(_) | Kind::Set(_) => "list",
        Kind::Map { .. } => "map",
        Kind::Record(_) | Kind::Chosen => "record",
        Kind::Foreign { .. } => "reference",
    }
}

/// Every metric that a node shows has its line in docs/metrics.md.
#[test]
fn every_metric_is_documented() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    let shown = std::fs::read_to_string(root().join("tests/golden/metrics.txt")).expect("what a node shows");
    let families = shown.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| !name.contains('{'));
    for (name, rest) in families {
        let kind = rest.split(' ').next().unwrap_or_default();
        assert!(page.contains(&format!("| `{name}` | {kind} |")), "{name} is not in docs/metrics.md");
    }
}

#[test]
fn the_configuration_file_is_true() {
    let mut out = String::from(
        "# Settings of a node, each with its default. Copy this file, change what you need, and start with\n\
         # `troop start -c FILE`. Without -c the first of /etc/troop/troop.conf, /etc/troop.conf, /etc/kong/kong.conf and\n\
         # /etc/kong.conf is read. Each setting is also a variable, TROOP_PROXY_LISTEN for proxy_listen (or KONG_PROXY_LISTEN),\n\
         # which goes before the file. A value may be a reference: {vault://env/name-of-a-variable}.\n",
    );
    for setting in TABLE {
        out.push('\n');
        for line in setting.doc.lines() {
            writeln!(out, "# {}", line.trim()).expect("a string");
        }
        writeln!(out, "# Type: {}.", setting.kind.describe()).expect("a string");
        if !setting.aliases.is_empty() {
            writeln!(out, "# Also: {}.", setting.aliases.join(", ")).expect("a string");
        }
        if setting.idle {
            out.push_str("# It has no effect in this release.\n");
        }
        out.push_str(format!("#{} = {}", setting.name, setting.default).trim_end());
        out.push('\n');
    }
    out.push_str("\n# These settings of Kong are accepted and do nothing:\n");
    let mut why: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    IGNORED.iter().for_each(|i| why.entry(i.why).or_default().push(i.name));
    for (why, names) in why {
        writeln!(out, "# - {why}:").expect("a string");
        for names in names.chunks(4) {
            writeln!(out, "#   {}", names.join(", ")).expect("a string");
        }
    }
    compare(&BTreeMap::from([(PathBuf::from("config/troop.conf"), out)]));
}

#[test]
fn the_page_of_settings_is_true() {
    let mut out = String::from(SETTINGS);
    for setting in TABLE.iter().filter(|s| !s.idle) {
        let meaning = setting.doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let also = setting.aliases.iter().fold(String::new(), |all, alias| all + &format!(" Also `{alias}`."));
        let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        writeln!(
            out,
            "| `{}` | `TROOP_{}` | {} | {default} | {} | {meaning}{also} |",
            setting.name,
            setting.name.to_uppercase(),
            setting.kind.describe(),
            if setting.live { "reload" } else { "start" },
        )
        .expect("a string");
    }
    out.push_str(WITHOUT_EFFECT);
    let mut why: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    TABLE.iter().filter(|s| s.idle).for_each(|s| why.entry(troop::settings::IDLE).or_default().push(s.name));
    IGNORED.iter().for_each(|i| why.entry(i.why).or_default().push(i.name));
    for (why, names) in why {
        let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        writeln!(out, "| {why} | {names} |").expect("a string");
    }
    compare(&BTreeMap::from([(PathBuf::from("docs/settings.md"), out)]));
}

/// The head of docs/settings.md.
const SETTINGS: &str = "# Settings

A node reads its settings when it starts, from these places; a later one goes before an earlier one:

1. the defaults below;
2. one file: the one of `-c`, else the first that exists of `/etc/troop/troop.conf`, `/etc/troop.conf`, `/etc/kong/kong.conf`
   and `/etc/kong.conf`;
3. variables of the environment: `KONG_` and the name in capitals, then `TROOP_` and the name;
4. `-p` on the command line, for `prefix`.

The file has lines of `name = value`; `#` begins a comment and `\\#` is the character. A boolean is `on` or `off`, an array is
written with commas, a time as `60s`, `5m` or `1h`, a size as `8k` or `10m`. An empty value means that the setting is not set.
A value may be a reference to another variable, `{vault://env/my-secret}` for `MY_SECRET`.

`troop check FILE` says everything that is wrong with a file, and names what has no effect. `troop start --vv` shows the
settings that a node has, without secrets, and so does `GET /` of the Admin API under `configuration`. [troop.conf](../config/troop.conf)
has every setting with its default. `troop reload` reads the file again: settings marked `reload` take
effect then, the others when the node starts; [operations](operations.md#reload) says more.

| setting | variable | type | default | read at | meaning |
|---|---|---|---|---|---|
";

/// Stands before the second table of docs/settings.md.
const WITHOUT_EFFECT: &str = "
## Without effect

These are read and shown by the Admin API, and do nothing. A node that is given one says so in its log when it starts.
So are all directives for nginx (`nginx_http_*`, `nginx_proxy_*` and the like) that the table above does not have.

| why | settings |
|---|---|
";

#[test]
fn shipped_configuration_can_be_used_as_it_is() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        // troop.conf is being written at this moment; the next run looks at it
        return;
    }
    let config = root().join("config");
    let settings = Settings::load(&Sources { file: Some(config.join("troop.conf")), ..Sources::default() }).expect("good settings");
    // each setting once more, not commented out
    let text = std::fs::read_to_string(config.join("troop.conf")).expect("the file");
    let used: String = text
        .lines()
        .filter_map(|l| l.strip_prefix('#'))
        .filter(|l| l.split(" =").next().is_some_and(|name| TABLE.iter().any(|s| s.name == name)))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(used.lines().count(), TABLE.len());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), used).expect("written");
    let again = Settings::load(&Sources { file: Some(file.path().into()), ..Sources::default() }).expect("good defaults");
    assert_eq!(again.as_json(), settings.as_json());

    let mut checked = 0;
    let folders = [config.clone(), config.join("cluster")];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("the configuration").flatten());
    for entry in entries.filter(|entry| entry.path().is_file()) {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let text = std::fs::read_to_string(&path).expect("a text");
        match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("conf") => {
                let own = Settings::load(&Sources { file: Some(path), ..Sources::default() }).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(own.without_effect(), [], "{name}");
            }
            // tests/deployment.rs looks at it
            Some("yml") if name == "alerts.yml" => {}
            Some("yml") if name == "prometheus.yml" => {
                assert!(text.contains(&settings.status_listen[0].address.to_string()), "scrapes another address than the status API's");
            }
            Some("yml") => {
                let schemas = troop::node::schemas(&settings, PLUGINS.iter().collect());
                let document = troop::declarative::parse(&text, &schemas.context()).unwrap_or_else(|e| panic!("{name}: {}", e.listing()));
                assert!(!document.rows.is_empty() && document.warnings.is_empty(), "{name}");
            }
            Some("service") => unit(&text),
            Some("sh") => assert!((1..=3).all(|n| path.with_file_name(format!("node-{n}.conf")).exists()), "{name}"),
            _ => panic!("nothing checks {name}"),
        }
        checked += 1;
    }
    assert!(checked > 3, "the shipped configuration is in config/");
}

/// A unit of systemd: what it sets are settings, and it starts and reloads what the program has.
fn unit(text: &str) {
    let given = text.lines().filter_map(|line| line.strip_prefix("Environment=TROOP_")).filter_map(|line| line.split_once('='));
    let given: Vec<String> = given.map(|(name, _)| name.to_lowercase()).collect();
    assert!(given.contains(&"prefix".to_owned()) && given.iter().all(|name| TABLE.iter().any(|s| s.name == *name)), "{given:?}");
    assert!(text.contains("\nExecStart=") && text.contains(" start\n") && text.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
}
