//! `cargo run --release -p loadtest -- ...`: measures Troop beside other gateways. README.md says how to run and read it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`] | the command line |
//! | [`scenarios`] | the table of scenarios and their bars |
//! | [`documents`] | from a row of the table to configurations and requests |
//! | [`measure`] | figures, ratios, bars |
//! | [`bench`] | runs scenarios |
//! | [`load`] | the generator |
//! | [`live`] | the upstream of WebSockets and events |
//! | [`peers`], [`troop`], [`service`] | gateways as processes |
//! | [`admin`] | calls of the Admin API |
//! | [`cpu`], [`usage`], [`machine`] | CPUs, what processes use, where this runs |
//! | [`instructions`] | the gate on instructions for each request |
//! | [`report`], [`chart`] | the page |

mod admin;
mod args;
mod bench;
mod chart;
mod cpu;
mod documents;
mod instructions;
mod live;
mod load;
mod machine;
mod measure;
mod peers;
mod report;
mod scenarios;
mod service;
mod troop;
mod usage;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use args::{Args, Command};
use bench::{Bench, Finding, say};
use cpu::Cpus;
use instructions::{Then, Ways};
use measure::Metric;
use peers::{Peer, Place};
use report::Preface;
use scenarios::{SCENARIOS, Scenario};
use troop::Launch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    // what is interrupted is dropped, and with it every process that was started
    let tasks = LocalSet::new();
    let done = tokio::select! {
        done = tasks.run_until(run(&args)) => done,
        error = interrupted() => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    if args.list {
        return list();
    }
    raise_open_files()?;
    if let Some(Command::Instructions { check, write, of, requests, profile, keep, misses }) = &args.command {
        let binary = binary(args, profile).await?;
        let cpus = Cpus::at_least_one()?;
        cpu::pin(cpus.load)?;
        let place = Place::prepare(cpus).await?;
        let then = match (check, write) {
            (true, _) => Then::Check,
            (_, true) => Then::Write,
            _ => Then::Say,
        };
        let ways = Ways { requests: *requests, keep: keep.as_deref(), misses: *misses };
        return instructions::run(&place, binary, profile, of, ways, then).await;
    }
    let cpus = Cpus::of_machine()?;
    let chosen = chosen(&args.scenario)?;
    let peers = present(args.peers.iter().map(|text| Peer::parse(text)).collect::<Result<_>>()?);
    let binary = if args.calibrate { PathBuf::new() } else { binary(args, "release").await? };
    cpu::pin(cpus.load)?;
    let place = Place::prepare(cpus).await?;
    let launch = Launch { binary, under: Vec::new() };
    let bench = Bench { place, launch, peers, effort: args.effort() };
    if args.calibrate {
        return calibrate(&bench).await;
    }
    let preface = preface(&bench)?;
    let mut findings: Vec<Finding> = Vec::new();
    for scenario in chosen {
        findings.push(bench.measure(scenario).await);
    }
    let folder = args.out.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("results"));
    let page = report::write(&folder, &preface.date, &preface, &findings)?;
    say(&format!("report: {}", page.display()));
    Ok(())
}

/// The peers that can be started here.
fn present(peers: Vec<Peer>) -> Vec<Peer> {
    let (there, missing): (Vec<Peer>, Vec<Peer>) = peers.into_iter().partition(Peer::installed);
    for peer in missing {
        say(&format!("{} is not installed and left out", peer.name()));
    }
    there
}

async fn binary(args: &Args, profile: &str) -> Result<PathBuf> {
    match &args.troop {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string()),
        None => troop::build(profile).await,
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let by_name = |name: &String| scenarios::scenario(name).with_context(|| format!("no scenario {name}; --list names them"));
    names.iter().map(by_name).collect()
}

fn list() -> Result<()> {
    let mut out = String::new();
    for scenario in SCENARIOS {
        let _ = writeln!(out, "{:<24} {}", scenario.name, scenario.title);
        for bar in scenario.bars {
            let _ = writeln!(out, "{:<24}   {} {}", "", bar.what, bar.limit);
        }
    }
    let _ = writeln!(out, "instructions             {} under callgrind", instructions::counted());
    // a closed pipe is nobody's error
    let _ = std::io::stdout().lock().write_all(out.as_bytes());
    Ok(())
}

async fn calibrate(bench: &Bench) -> Result<()> {
    say("nginx answering by itself, on the proxy's CPU:");
    for (connections, sample) in bench.calibrate().await? {
        let figure = |metric: Metric| sample.get(&metric).copied().unwrap_or_default();
        let (rate, own) = (figure(Metric::Rate), figure(Metric::LoadUs));
        say(&format!(
            "{connections:>4} connections: {rate:.0} requests/s; generator {own:.2} µs a request, {:.0} % of its CPU; nginx {:.2} µs, {:.0} %",
            own * rate / 1e4,
            figure(Metric::CpuUs),
            figure(Metric::Busy)
        ));
    }
    Ok(())
}

fn preface(bench: &Bench) -> Result<Preface> {
    let (version, _) = troop::facts(&bench.launch.binary)?;
    let place = &bench.place;
    let mut facts = machine::facts();
    facts.push(format!("commit: {}; {version}, one worker", machine::commit()));
    let startable = bench.peers.iter().filter(|peer| !matches!(peer, Peer::Kong { .. }));
    facts.push(format!("beside: {}", startable.map(Peer::version).collect::<Vec<_>>().join("; ")));
    facts.push(format!("CPU {} for the gateway, {} for load, {} for the upstream", place.cpus.proxy, place.cpus.load, place.cpus.upstream));
    let effort = bench.effort;
    facts.push(format!("{} rounds of {:.1} s", effort.rounds, effort.window.as_secs_f64()));
    let words: Vec<String> = std::env::args().skip(1).collect();
    let date = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]"))?;
    Ok(Preface { date, facts, command: format!("cargo run --release -p loadtest -- {}", words.join(" ")).trim().to_owned() })
}

/// Thousands of connections need thousands of files.
fn raise_open_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

async fn interrupted() -> anyhow::Error {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        return anyhow::anyhow!("cannot listen to signals");
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    anyhow::anyhow!("interrupted")
}
