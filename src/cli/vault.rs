//! Looks up a reference.

use std::process::ExitCode;

use super::args::Vault;
use super::{Outcome, say, wrong};
use crate::catalog::vault::Vaults;

pub fn run(command: &Vault) -> Outcome {
    let Vault::Get { reference, .. } = command;
    let Some(reference) = reference else { return wrong("the 'get' command needs a <reference> argument") };
    let reference = if reference.starts_with('{') { reference.clone() } else { format!("{{vault://{reference}}}") };
    let environment = |name: &str| std::env::var(name).ok();
    let value = Vaults::new(&environment).resolve(&reference)?;
    say(&value);
    Ok(ExitCode::SUCCESS)
}
