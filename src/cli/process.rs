//! Start, stop, quit, reload, restart, health, drain.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::args::Place;
use super::{Name, Outcome, api, say, settings, wrong};
use crate::settings::Settings;

/// How often a process that is to end is looked at.
const LOOK: Duration = Duration::from_millis(50);

pub fn start(place: &Place, name: Name) -> Outcome {
    let settings = settings(place)?;
    if let Some(pid) = running(&settings) {
        return wrong(format!(
            "{} is already running in {} (process {pid}); stop it with '{} stop', or choose another prefix",
            name.title,
            settings.prefix.display(),
            name.command
        ));
    }
    crate::node::run(settings, || say(&format!("{} started", name.title)))?;
    Ok(ExitCode::SUCCESS)
}

pub fn restart(place: &Place, name: Name) -> Outcome {
    let old = settings(place)?;
    if running(&old).is_some() {
        stop(&old, name)?;
    }
    start(place, name)
}

pub fn stop(settings: &Settings, name: Name) -> Outcome {
    let pid = must_run(settings, name)?;
    signal(pid, Signal::SIGTERM)?;
    // The node finishes what is under way in its own time and then ends; what is added is for a machine under load.
    let patience = settings.nginx_main_worker_shutdown_timeout.0 + Duration::from_secs(10);
    if !ended(pid, patience) {
        return wrong(format!("{} (process {pid}) does not stop; end it with '{} quit -t 0'", name.title, name.command));
    }
    say(&format!("{} stopped", name.title));
    Ok(ExitCode::SUCCESS)
}

pub fn quit(settings: &Settings, timeout: f64, wait: f64, name: Name) -> Outcome {
    let (Ok(timeout), Ok(wait)) = (Duration::try_from_secs_f64(timeout), Duration::try_from_secs_f64(wait)) else {
        return wrong("timeout and wait must be seconds, 0 or more");
    };
    let pid = must_run(settings, name)?;
    std::thread::sleep(wait);
    signal(pid, Signal::SIGQUIT)?;
    if ended(pid, timeout) {
        say(&format!("{} stopped (gracefully)", name.title));
    } else {
        signal(pid, Signal::SIGKILL)?;
        ended(pid, Duration::from_secs(10));
        let _ = std::fs::remove_file(settings.pid_file());
        say(&format!("Timeout, {} stopped forcefully", name.title));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn reload(settings: &Settings, name: Name) -> Outcome {
    let pid = must_run(settings, name)?;
    signal(pid, Signal::SIGHUP)?;
    say(&format!("{} reloaded", name.title));
    Ok(ExitCode::SUCCESS)
}

pub fn health(settings: &Settings, name: Name) -> Outcome {
    must_have_prefix(settings)?;
    let (process, prefix) = (if name.command == "kong" { "nginx" } else { name.command }, settings.prefix.display());
    if running(settings).is_none() {
        return wrong(format!("{} is not running at {prefix}", name.title));
    }
    say(&format!("{process}.......running\n\n{} is healthy at {prefix}", name.title));
    Ok(ExitCode::SUCCESS)
}

pub fn drain(settings: &Settings, name: Name) -> Outcome {
    let Some(listen) = settings.status_listen.iter().find(|l| !l.ssl) else {
        say("drain needs a status listener without TLS: set status_listen");
        return Ok(ExitCode::SUCCESS);
    };
    match api::call(listen.address, "POST", "/status/ready", r#"{"status":"draining"}"#) {
        Ok(answer) if answer.status < 300 => say(&format!("{}'s status successfully changed to 'draining'", name.title)),
        Ok(answer) => say(&format!("the status API answered {}: {}", answer.status, answer.body.trim_end())),
        Err(e) => say(&format!("no answer from the status API on {}: {e}", listen.address)),
    }
    Ok(ExitCode::SUCCESS)
}

pub fn prepare(settings: &Settings, name: Name) -> Outcome {
    for directory in ["", "pids", "logs", "ssl"] {
        if let Err(e) = std::fs::create_dir_all(settings.path(directory)) {
            return wrong(format!("could not prepare {} prefix at {}: {e}", name.title, settings.prefix.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The process of the node that runs in this prefix. In containers every program is process 1, so that a file which a killed
/// node has left can name this very process.
pub fn running(settings: &Settings) -> Option<Pid> {
    let pid = std::fs::read_to_string(settings.pid_file()).ok()?.trim().parse().ok()?;
    let pid = Pid::from_raw(pid);
    (pid.as_raw() > 0 && pid != Pid::this() && alive(pid) && is_node(pid)).then_some(pid)
}

fn must_run(settings: &Settings, name: Name) -> anyhow::Result<Pid> {
    must_have_prefix(settings)?;
    match running(settings) {
        Some(pid) => Ok(pid),
        None => wrong(format!("{} is not running at {}", name.title, settings.prefix.display())),
    }
}

fn must_have_prefix(settings: &Settings) -> anyhow::Result<()> {
    if settings.prefix.is_dir() { Ok(()) } else { wrong(format!("no such prefix: {}", settings.prefix.display())) }
}

/// A process is there, also when it belongs to somebody else.
fn alive(pid: Pid) -> bool {
    !matches!(kill(pid, None), Err(Errno::ESRCH)) && !is_zombie(pid)
}

/// A process that ended and that its parent has not asked about.
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// After a crash another program may have been given the number in the file. Where the system cannot say, the file is
/// believed.
fn is_node(pid: Pid) -> bool {
    match std::fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line.split(|b| *b == 0).any(|argument| matches!(argument, b"start" | b"restart")),
        Err(_) => true,
    }
}

fn signal(pid: Pid, signal: Signal) -> anyhow::Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => wrong(format!("could not signal process {pid}: {e}")),
    }
}

/// Waits for a process to end; whether it did in time.
fn ended(pid: Pid, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while alive(pid) {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}
