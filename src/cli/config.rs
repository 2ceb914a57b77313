//! Declarative configuration: init, parse, import, export.

use std::path::Path;
use std::process::ExitCode;

use super::args::Config;
use super::{Name, Outcome, say, wrong};

/// What `config init` writes.
const EXAMPLE: &str = include_str!("../../config/declarative.example.yml");

pub fn run(command: &Config, _: Name) -> Outcome {
    match command {
        Config::Init { file, .. } => init(file),
        Config::Parse { .. } | Config::DbImport { .. } | Config::DbExport { .. } => wrong("not there yet"),
    }
}

fn init(file: &Path) -> Outcome {
    if file.exists() {
        return wrong(format!("{} already exists. Will not overwrite it.", file.display()));
    }
    if std::fs::write(file, EXAMPLE).is_err() {
        say(&format!("could not write {}", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}
