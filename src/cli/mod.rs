//! The commands of the binary. Under the name `kong` it behaves the same and calls itself Kong.
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`] | the commands and their options |
//! | [`process`] | start, stop, quit, reload, restart, health, drain |
//! | [`migrations`] | what is left of database migrations where the store needs none |
//! | [`config`] | declarative configuration: init, parse, import, export |
//! | [`hybrid`] | a certificate and key for a cluster |
//! | [`vault`] | looks up a reference |
//! | [`api`] | calls the Admin and status API of a node that runs |

mod api;
mod args;
mod config;
mod hybrid;
mod migrations;
mod process;
mod vault;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use args::{Args, Command, Place, Verbosity};

use crate::settings::{Overrides, Settings, Sources};

/// Version of Kong whose contract is spoken.
const KONG_VERSION: &str = "3.10.0";

/// What a command does: an exit code, or a sentence that says what is wrong.
type Outcome = anyhow::Result<ExitCode>;

/// Name of the program in texts, and of the command in hints.
#[derive(Clone, Copy, Debug)]
struct Name {
    title: &'static str,
    command: &'static str,
}

impl Name {
    fn of(program: Option<&OsString>) -> Self {
        match program.and_then(|p| Path::new(p).file_name()) {
            Some(name) if name == "kong" => Self { title: "Kong", command: "kong" },
            _ => Self { title: "Troop", command: "troop" },
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = Name::of(arguments.first());
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(e) => return refuse(&e, &arguments),
    };
    match execute(args.command, name) {
        Ok(code) => code,
        Err(e) => {
            complain(&format!("Error: {e}\n\n  Run with --v (verbose) or --vv (debug) for more details"));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, name: Name) -> Outcome {
    match command {
        Command::Start(start) => process::start(&start.place, name),
        Command::Stop { place } => process::stop(&settings(&place)?, name),
        Command::Quit { place, timeout, wait } => process::quit(&settings(&place)?, timeout, wait, name),
        Command::Reload { place, .. } => process::reload(&settings(&place)?, name),
        Command::Restart(start) => process::restart(&start.place, name),
        Command::Health { place } => process::health(&settings(&place)?, name),
        Command::Drain { place } => process::drain(&settings(&place)?, name),
        Command::Prepare { place } => process::prepare(&settings(&place)?, name),
        Command::Check { conf, verbosity } => check(&Place { conf, verbosity, ..Place::default() }),
        Command::Version { all } => {
            say(&version(all, name));
            Ok(ExitCode::SUCCESS)
        }
        Command::Migrations { command } => migrations::run(&command, name),
        Command::Config { command } => config::run(&command, name),
        Command::Hybrid { command } => hybrid::run(&command),
        Command::Vault { command } => vault::run(&command),
    }
}

fn check(place: &Place) -> Outcome {
    let settings = settings(place)?;
    for (name, why) in settings.without_effect() {
        complain(&format!("{name} has no effect: {why}"));
    }
    match settings.file() {
        Some(file) => say(&format!("configuration at {} is valid", file.display())),
        None => say("there is no configuration file; the defaults and the environment are valid"),
    }
    Ok(ExitCode::SUCCESS)
}

fn version(all: bool, name: Name) -> String {
    let own = env!("CARGO_PKG_VERSION");
    match (all, name.command) {
        (false, "kong") => KONG_VERSION.to_owned(),
        (false, _) => own.to_owned(),
        (true, "kong") => format!("Kong: {KONG_VERSION}\nTroop: {own}"),
        (true, _) => format!("Troop: {own}\nKong: {KONG_VERSION}"),
    }
}

/// The settings of a command. `--v` tells where they come from, `--vv` also what they are, without secrets.
fn settings(place: &Place) -> anyhow::Result<Settings> {
    let mut overrides = Overrides::new();
    if let Some(prefix) = &place.prefix {
        overrides.insert("prefix".into(), prefix.display().to_string());
    }
    let sources = Sources::of_process(place.conf.clone(), overrides);
    let Verbosity { verbose, debug } = place.verbosity;
    if verbose || debug {
        match sources.chosen_file() {
            Some(file) => complain(&format!("reading the configuration file {}", file.display())),
            None => complain(&format!("there is no configuration file: {}", listed(&sources.default_files))),
        }
    }
    let settings = Settings::load(&sources)?;
    if verbose || debug {
        complain(&format!("the prefix is {}", settings.prefix.display()));
    }
    if debug {
        settings.as_json().iter().for_each(|(name, value)| complain(&format!("{name} = {value}")));
    }
    Ok(settings)
}

fn listed(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Answers a command line that cannot be read.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            say(error.to_string().trim_end());
            ExitCode::SUCCESS
        }
        ErrorKind::InvalidSubcommand => {
            let unknown = match error.get(ContextKind::InvalidSubcommand) {
                Some(ContextValue::String(text)) => text.clone(),
                _ => String::new(),
            };
            let parent = arguments.iter().skip(1).map(|a| a.to_string_lossy()).take_while(|a| *a != unknown).find(|a| !a.starts_with('-'));
            match parent {
                Some(parent) => complain(&format!("No such command for {parent}: {unknown}")),
                None => complain(&format!("No such command: {unknown}")),
            }
            ExitCode::FAILURE
        }
        _ => {
            complain(error.to_string().trim_end());
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to the standard output. A closed pipe is nobody's error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Writes a line to the standard error.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// An error that is only a sentence.
fn wrong<T>(text: impl std::fmt::Display) -> anyhow::Result<T> {
    Err(anyhow!("{text}"))
}

#[cfg(test)]
mod tests;
