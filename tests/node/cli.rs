//! The commands of the binary beside a node that runs, and what they say.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Node, program};

/// Runs a command with no settings but these.
fn troop(words: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program());
    command.args(words).env_clear();
    for (name, value) in settings {
        command.env(format!("TROOP_{}", name.to_uppercase()), value);
    }
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a node that runs holds comes out whole, and goes into another store.
#[test]
fn an_export_of_a_running_node_is_whole() {
    let node = Node::start(&[]);
    node.admin("POST", "/services", json!({"name": "a-service", "url": "http://a.test"}));
    node.admin("POST", "/consumers", json!({"username": "anna"}));
    node.admin("POST", "/consumers/anna/key-auth", json!({"key": "the-key", "ttl": 3600}));
    node.admin("POST", "/consumers/anna/basic-auth", json!({"username": "anna", "password": "secret"}));
    node.admin("POST", "/consumer_groups", json!({"name": "gold"}));
    node.admin("POST", "/consumer_groups/gold/consumers", json!({"consumer": "anna"}));
    let pair = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
    node.admin("POST", "/certificates", json!({"cert": pair.cert.pem(), "key": pair.signing_key.serialize_pem(), "snis": ["a.test"]}));
    node.admin("POST", "/upstreams", json!({"name": "u"}));
    node.admin("POST", "/upstreams/u/targets", json!({"target": "10.1.2.3:80", "weight": 0}));
    let prefix = node.admin("GET", "/", Value::Null)["configuration"]["prefix"].as_str().expect("a directory").to_owned();

    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    let admin = node.admin.to_string();
    let done = troop(&["config", "db_export", &at("live.yml")], &[("prefix", &prefix), ("admin_listen", &admin)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let mode = std::fs::metadata(at("live.yml")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds secrets");

    let other = at("other");
    let done = troop(&["config", "db_import", &at("live.yml")], &[("prefix", &other)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let done = troop(&["config", "db_export", &at("again.yml")], &[("prefix", &other)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let exported = std::fs::read_to_string(at("again.yml")).expect("a file");
    for part in [
        "a-service",
        "the-key",
        "ttl: 3600",
        "basicauth_credentials:",
        "name: gold",
        "consumer_group_consumers:",
        "snis:",
        "a.test",
        "10.1.2.3:80",
    ] {
        assert!(exported.contains(part), "{part} is missing in\n{exported}");
    }
    assert!(!exported.contains("secret"), "passwords stay hashed");
}

#[test]
fn a_check_names_what_has_no_effect() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "prxy_listen = 0.0.0.0:80\nlog_level = info\n").expect("written");
    let path = file.path().display().to_string();
    let done = troop(&["check", &path], &[]);
    assert!(done.status.success());
    assert_eq!(text(&done.stdout), format!("configuration at {path} is valid\n"));
    assert_eq!(text(&done.stderr), "prxy_listen has no effect: there is no such setting\n");
}

#[test]
fn verbose_commands_tell_settings_and_no_secrets() {
    let settings = [("prefix", "/nowhere"), ("pg_password", "hunter2"), ("log_level", "warn")];
    let quiet = troop(&["health"], &settings);
    assert_eq!(text(&quiet.stderr).lines().next(), Some("Error: no such prefix: /nowhere"));
    let told = text(&troop(&["health", "--v"], &settings).stderr);
    assert!(told.contains("the prefix is /nowhere\n") && !told.contains("log_level"), "{told}");
    let told = text(&troop(&["health", "--vv"], &settings).stderr);
    assert!(told.contains("log_level = \"warn\"\n") && told.contains("pg_password = \"******\"\n"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}
