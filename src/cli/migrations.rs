//! What is left of database migrations where the store needs none.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use super::args::{Migrating, Migrations};
use super::{Name, Outcome, complain, say, settings, wrong};
use crate::settings::Settings;
use crate::settings::value::Database;
use crate::store::{Embedded, Store};

pub fn run(command: &Migrations, name: Name) -> Outcome {
    match command {
        Migrations::Bootstrap(migrating) => {
            let settings = with_store(migrating)?;
            if is_bootstrapped(&settings) {
                say("Database already bootstrapped");
            } else {
                say("Bootstrapping database...");
                Embedded::open(&settings.prefix)?;
                say("Database is up-to-date");
            }
            Ok(ExitCode::SUCCESS)
        }
        Migrations::Up(migrating) => {
            with_store(migrating)?;
            say("Database is already up-to-date");
            Ok(ExitCode::SUCCESS)
        }
        Migrations::Finish(migrating) => {
            with_store(migrating)?;
            say("No pending migrations to finish");
            Ok(ExitCode::SUCCESS)
        }
        Migrations::List(migrating) => {
            let settings = with_store(migrating)?;
            if !is_bootstrapped(&settings) {
                say(&format!("Database needs bootstrapping; run '{} migrations bootstrap'", name.command));
                return Ok(ExitCode::from(3));
            }
            say("Executed migrations:\ncore: embedded");
            Ok(ExitCode::SUCCESS)
        }
        Migrations::Status(migrating) => {
            let settings = with_store(migrating)?;
            say(&status(is_bootstrapped(&settings)));
            Ok(ExitCode::SUCCESS)
        }
        Migrations::Reset { migrating, yes } => reset(&with_store(migrating)?, *yes),
    }
}

fn with_store(migrating: &Migrating) -> anyhow::Result<Settings> {
    let settings = settings(&migrating.place)?;
    match settings.database {
        Database::Embedded => Ok(settings),
        database => wrong(format!("migrations need a store: database is {}", database.as_str())),
    }
}

fn is_bootstrapped(settings: &Settings) -> bool {
    settings.path("data/troop.redb").is_file()
}

fn status(bootstrapped: bool) -> String {
    let executed =
        if bootstrapped { serde_json::json!([{"subsystem": "core", "migrations": ["embedded"]}]) } else { serde_json::json!([]) };
    let status = serde_json::json!({
        "executed_migrations": executed,
        "pending_migrations": [],
        "missing_migrations": [],
        "new_migrations": [],
        "needs_bootstrap": !bootstrapped,
    });
    format!("{status:#}")
}

fn reset(settings: &Settings, yes: bool) -> Outcome {
    if !yes {
        if !std::io::stdin().is_terminal() {
            return wrong("not a tty: invoke 'reset' non-interactively with the --yes flag");
        }
        complain("Are you sure? This operation is irreversible. [y/N] ");
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            say("cancelled");
            return Ok(ExitCode::SUCCESS);
        }
    }
    if !is_bootstrapped(settings) {
        say("Database not bootstrapped, nothing to reset");
        return Ok(ExitCode::FAILURE);
    }
    // Opening it first shows that no node is using it.
    let store = Embedded::open(&settings.prefix)?;
    say(&format!("Resetting database ({})...", store.name()));
    std::fs::remove_file(store.path())?;
    say("Database successfully reset");
    Ok(ExitCode::SUCCESS)
}
