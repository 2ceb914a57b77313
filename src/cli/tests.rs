use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use super::args::{Args, Command, Config};
use super::{Name, version};

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
