use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use super::args::{Args, Command, Config};
use super::{Name, config, version};
use crate::cli::args::{Place, Verbosity};

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn commands_are_kongs() {
    for line in [
        "start -c a.conf -p /p --v --run-migrations --db-timeout 3",
        "stop -p /p",
        "quit -t 10 -w 0",
        "reload",
        "restart --vv",
        "health",
        "drain",
        "prepare -p /p",
        "check a.conf",
        "version -a",
        "migrations bootstrap -f",
        "migrations up",
        "migrations finish",
        "migrations list",
        "migrations status",
        "migrations reset -y",
        "config init",
        "config parse a.yml",
        "config db_import a.yml",
        "config db_export out.yml",
        "hybrid gen_cert a b -d 3",
        "vault get env/x",
    ] {
        let words = std::iter::once("troop").chain(line.split(' '));
        if let Err(e) = Args::try_parse_from(words) {
            panic!("{line}: {e}");
        }
    }
    let args = Args::try_parse_from(["troop", "config", "db_export"]).expect("a good line");
    assert!(matches!(args.command, Command::Config { command: Config::DbExport { file, .. } } if file.as_os_str() == "kong.yml"));
}

#[test]
fn names() {
    let kong = Name::of(Some(&OsString::from("/usr/local/bin/kong")));
    assert_eq!((kong.title, version(false, kong).as_str()), ("Kong", "3.10.0"));
    assert_eq!(Name::of(None).title, "Troop");
}

#[test]
fn what_is_imported_comes_out_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let place = Place { conf: Some(at("troop.conf")), prefix: Some(at("prefix")), verbosity: Verbosity::default() };
    std::fs::write(at("troop.conf"), "database = embedded\n").expect("written");
    let name = Name::of(None);
    let run = |command| config::run(&command, name);
    run(Config::Init { file: at("in.yml"), place: place.clone() }).expect("an example");
    let again = run(Config::Init { file: at("in.yml"), place: place.clone() }).expect_err("it exists").to_string();
    assert!(again.ends_with("in.yml already exists. Will not overwrite it."), "{again}");
    run(Config::Parse { file: at("in.yml"), place: place.clone() }).expect("the example is good");
    run(Config::DbImport { file: at("in.yml"), place: place.clone() }).expect("imported");
    run(Config::DbExport { file: at("out.yml"), place: place.clone() }).expect("exported");
    let exported = std::fs::read_to_string(at("out.yml")).expect("a file");
    for part in
        ["_format_version: '3.0'", "_transform: false", "example-service", "example-route", "key-auth", "change-this-key", "127.0.0.1:9001"]
    {
        assert!(exported.contains(part), "{part} is missing in\n{exported}");
    }
    run(Config::Parse { file: at("out.yml"), place: place.clone() }).expect("an export is good");
    std::fs::write(at("bad.yml"), "_format_version: '3.0'\nservices:\n- name: a\n").expect("written");
    let bad = run(Config::Parse { file: at("bad.yml"), place }).expect_err("no host").to_string();
    assert!(bad.starts_with("Failed parsing:\nin 'services':") && bad.contains("in 'host': required field missing"), "{bad}");
}
