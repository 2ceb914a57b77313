//! The gate that noise does not touch: instructions for each request under callgrind, held against committed numbers.
//!
//! Troop runs with one worker, and requests are sent one after the other on one connection, so that every request goes the
//! same way. A run with N requests and one with 2N differ by N requests and by nothing else: not by the start, not by the
//! first request, not by the end.
//!
//! Only the worker's thread is held to a number. What other threads do meanwhile depends on the time (ticks of actors) or on
//! chance (the main thread gathers entropy for hundreds of millions of instructions); it is shown, and the CPU of a request that
//! scenarios measure is that of all threads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::bench::say;
use crate::documents::requests;
use crate::load::Protocol;
use crate::load::http1::{Connection, connect};
use crate::load::tls::Client;
use crate::peers::Place;
use crate::scenarios::{SCENARIOS, Scenario, scenario};
use crate::service::program;
use crate::troop::{Launch, Refused, Store};

/// What is counted, by names of the table.
const COUNTED: [&str; 2] = ["plain", "key-auth-rate-limiting"];
/// Of the committed number, in both directions: a gain is to be written down, so that it is not lost again.
const TOLERANCE: f64 = 0.03;
/// Of the count of the same node alone, in both directions: what a node of a cluster does besides, it does on other threads.
const CLUSTERED: f64 = 0.02;
/// The scenario that is counted on a node of a cluster as well.
const IN_A_CLUSTER: &str = "plain";
/// Part of the names of functions that the worker's thread alone goes through.
const SERVING: &str = "proxy::server::http1";
/// How the name of the main thread's file ends.
const MAIN: &str = "-01";
/// Sent before anything counts, in both runs.
const WARM_UP: usize = 50;
/// From one request to the next where a scenario has many: a prime, so that all come, in an order without a neighbourhood.
const STRIDE: usize = 7_919;

/// The committed numbers.
pub fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

/// What is to be done with the counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Say,
    Check,
    Write,
}

/// Counts instructions and checks them against the committed numbers, or writes them there.
pub async fn run(place: &Place, binary: PathBuf, profile: &str, of: &[String], ways: Ways<'_>, then: Then) -> Result<()> {
    let before = read(&committed())?;
    let mut counts = BTreeMap::new();
    let chosen: Vec<&str> = if of.is_empty() { COUNTED.to_vec() } else { of.iter().map(String::as_str).collect() };
    for name in chosen {
        let began = Instant::now();
        let scenario = scenario(name).with_context(|| format!("{name} is not in the table"))?;
        let Counts { worker: count, others, misses } = count(place, &binary, scenario, Store::Declared, ways).await?;
        let compared = before.get(name).map(|old| format!(", {:+.1} % of {old:.0}", (count / old - 1.0) * 100.0)).unwrap_or_default();
        let (took, others) = (began.elapsed().as_secs_f64(), others.max(0.0));
        say(&format!("{name}: {count:.0} instructions a request{compared}; {others:.0} on other threads ({took:.0} s)"));
        if ways.misses {
            let [first, second] = misses;
            say(&format!("{name}: {first:.1} misses of the first level's data cache a request, {second:.1} of the second level's"));
        }
        counts.insert(name, count);
    }
    let more = match counts.get(IN_A_CLUSTER) {
        Some(alone) => Some(clustered(place, &binary, *alone, ways).await?),
        None => None,
    };
    match then {
        Then::Say => Ok(()),
        Then::Write => write(&committed(), profile, &counts),
        Then::Check => {
            if let Some(more) = more {
                ensure!(more.abs() <= CLUSTERED, "a node of a cluster takes {:+.1} % instructions a request", more * 100.0);
            }
            check(&before, &counts)
        }
    }
}

/// What a request costs more on a node of a cluster than on a node alone, as a part of it.
async fn clustered(place: &Place, binary: &Path, alone: f64, ways: Ways<'_>) -> Result<f64> {
    let scenario = scenario(IN_A_CLUSTER).with_context(|| format!("{IN_A_CLUSTER} is not in the table"))?;
    let clustered = count(place, binary, scenario, Store::Clustered, Ways { keep: None, ..ways }).await?;
    let more = clustered.worker / alone - 1.0;
    say(&format!(
        "{IN_A_CLUSTER} in a cluster: {:.0} instructions a request, {:+.1} % of those of a node alone; {:.0} on other threads",
        clustered.worker,
        more * 100.0,
        clustered.others.max(0.0)
    ));
    Ok(more)
}

/// How is counted.
#[derive(Clone, Copy)]
pub struct Ways<'a> {
    /// Requests of the shorter run.
    pub requests: usize,
    /// Folder in which callgrind's files are left.
    pub keep: Option<&'a Path>,
    /// Whether caches are simulated.
    pub misses: bool,
}

/// Instructions, by who has them carried out.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    worker: f64,
    /// All other threads but the main one.
    others: f64,
    /// The worker's, where they are counted: reads and writes that the first and the second level do not have.
    misses: [f64; 2],
}

/// Instructions of one request.
async fn count(place: &Place, binary: &Path, scenario: &Scenario, store: Store, ways: Ways<'_>) -> Result<Counts> {
    let n = ways.requests;
    let once = total(place, binary, scenario, store, n, Ways { keep: None, ..ways }).await?;
    let twice = total(place, binary, scenario, store, 2 * n, ways).await?;
    let each = |of: fn(&Run) -> u64| (of(&twice) as f64 - of(&once) as f64) / n as f64;
    let worker = each(|run| run.worker.instructions);
    ensure!(worker > 0.0, "more requests took fewer instructions: {once:?} and {twice:?}");
    let misses = [each(|run| run.worker.misses[0]), each(|run| run.worker.misses[1])];
    Ok(Counts { worker, others: each(|run| run.others), misses })
}

/// What a whole run with `n` requests took.
async fn total(place: &Place, binary: &Path, scenario: &Scenario, store: Store, n: usize, ways: Ways<'_>) -> Result<Run> {
    let valgrind = program("valgrind").context("valgrind is needed: apt-get install valgrind")?;
    let kept = ways.keep.map(|folder| folder.join(format!("callgrind.{}.out", scenario.name)));
    let out = kept.unwrap_or_else(|| place.directory.path().join("callgrind.out"));
    for old in by_thread(&out)? {
        std::fs::remove_file(old)?;
    }
    let file = format!("--callgrind-out-file={}", out.display());
    let mut under: Vec<String> = vec![valgrind.display().to_string()];
    under.extend(["--tool=callgrind", "--quiet", "--separate-threads=yes", &file].map(str::to_owned));
    if ways.misses {
        under.extend(["--cache-sim=yes", "--D1=32768,8,64", "--LL=1048576,8,64"].map(str::to_owned));
    }
    let launch = Launch { binary: binary.to_owned(), under };
    let started = launch.start(place, &scenario.setup, store).await;
    let troop = started.map_err(|refused| match refused {
        Refused::NotAvailable(why) => anyhow::anyhow!("{}: not available: {why}", scenario.name),
        Refused::Failed(error) => error,
    })?;
    let listeners = &troop.running.listeners;
    match (scenario.asks.protocol, listeners.https) {
        (Protocol::Http1, _) => ask(scenario, listeners.http, connect(listeners.http).await?, n).await?,
        (Protocol::Tls, Some(address)) => {
            let tls = Client::new(Protocol::Tls)?.connect(connect(address).await?).await?;
            ask(scenario, address, tls, n).await?;
        }
        _ => bail!("{} asks otherwise than by requests over HTTP/1.1 on one connection", scenario.name),
    }
    troop.running.service.context("it was started here")?.stop().await?;
    let files = by_thread(&out)?;
    ensure!(!files.is_empty(), "callgrind wrote no {}-*", out.display());
    let mut threads = Vec::new();
    for file in files.iter().filter(|file| !file.to_string_lossy().ends_with(MAIN)) {
        threads.push(events(&std::fs::read_to_string(file)?));
    }
    Run::of(&threads).context("no thread has read a request, or the program has no symbols")
}

/// Sends the requests that warm up, and `n` more.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(scenario: &Scenario, address: SocketAddr, stream: S, n: usize) -> Result<()> {
    let requests = requests(&scenario.asks, &scenario.setup, address)?;
    let mut connection = Connection::new(stream);
    for at in 0..WARM_UP + n {
        let request = &requests.http1[at * STRIDE % requests.http1.len()];
        let answer = connection.exchange(request, |_| {}).await?;
        ensure!(answer.status == 200 && answer.size == requests.answer && !answer.close, "{}: {answer:?}", scenario.name);
    }
    Ok(())
}

/// Callgrind's files of a run: `<out>-01` is that of the main thread, and each further thread has one.
fn by_thread(out: &Path) -> Result<Vec<PathBuf>> {
    let name = out.file_name().context("a file")?.to_string_lossy().into_owned() + "-";
    let mut files = Vec::new();
    for entry in std::fs::read_dir(out.parent().context("a folder")?)? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().strip_prefix(&name).map(str::to_owned);
        if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// What callgrind counted in a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Events {
    instructions: u64,
    misses: [u64; 2],
    /// Whether requests were read in it.
    serves: bool,
}

/// What the threads of a process did, but for the main one. They have no names that hold from one process to the next: callgrind
/// numbers them in the order in which they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    worker: Events,
    /// Instructions of all others.
    others: u64,
}

impl Run {
    /// The worker is the thread that reads requests.
    fn of(threads: &[Events]) -> Option<Self> {
        let worker = threads.iter().filter(|thread| thread.serves).max_by_key(|thread| thread.instructions)?;
        let all: u64 = threads.iter().map(|thread| thread.instructions).sum();
        Some(Self { worker: *worker, others: all - worker.instructions })
    }
}

/// The totals in callgrind's output. A thread that did nothing has none.
fn events(text: &str) -> Events {
    let line = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
    let names = line("events:").unwrap_or_default().split_ascii_whitespace();
    let totals = line("totals:").or_else(|| line("summary:")).unwrap_or_default().split_ascii_whitespace();
    let totals: BTreeMap<&str, u64> = names.zip(totals.filter_map(|total| total.parse().ok())).collect();
    let of = |wanted: &[&str]| wanted.iter().filter_map(|name| totals.get(name)).sum();
    Events { instructions: of(&["Ir"]), misses: [of(&["D1mr", "D1mw"]), of(&["DLmr", "DLmw"])], serves: text.contains(SERVING) }
}

fn read(path: &Path) -> Result<BTreeMap<String, f64>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text?,
    };
    let value: Value = serde_json::from_str(&text)?;
    let counts = value["instructions_per_request"].as_object().context("instructions.json holds no counts")?;
    Ok(counts.iter().filter_map(|(name, count)| Some((name.clone(), count.as_f64()?))).collect())
}

fn write(path: &Path, profile: &str, counts: &BTreeMap<&str, f64>) -> Result<()> {
    let counts: BTreeMap<&str, u64> = counts.iter().map(|(name, count)| (*name, count.round() as u64)).collect();
    let value = json!({
        "profile": profile,
        "measured_by": "cargo run -p loadtest -- instructions --write",
        "instructions_per_request": counts,
    });
    std::fs::write(path, serde_json::to_string_pretty(&value)? + "\n")?;
    say(&format!("written to {}", path.display()));
    Ok(())
}

/// Whether all counts are where they were.
fn check(committed: &BTreeMap<String, f64>, counts: &BTreeMap<&str, f64>) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, count) in counts {
        match committed.get(*name) {
            None => wrong.push(format!("{name} has no committed number")),
            Some(old) if count / old > 1.0 + TOLERANCE => wrong.push(format!("{name} takes {count:.0} instructions, it was {old:.0}")),
            Some(old) if count / old < 1.0 - TOLERANCE => {
                wrong.push(format!("{name} takes only {count:.0} instructions, it was {old:.0}: keep the gain with --write"));
            }
            Some(_) => {}
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// The scenarios that are counted, as a list for help texts.
pub fn counted() -> String {
    SCENARIOS.iter().map(|s| s.name).filter(|name| COUNTED.contains(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_callgrind() {
        let alone = Events { instructions: 12_345, ..Events::default() };
        assert_eq!(events("version: 1\nevents: Ir\nfn=(1) x\n1 2\ntotals: 12345\n"), alone);
        let cached = "events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw\nsummary: 77 9 9 1 2 3 1 4 5\n";
        assert_eq!(events(cached), Events { instructions: 77, misses: [5, 9], serves: false });
        assert_eq!(events("events: Ir\n"), Events::default());
    }

    #[test]
    fn the_worker_is_the_thread_that_reads_requests() {
        let thread = |instructions, serves| Events { instructions, serves, ..Events::default() };
        let run = Run::of(&[thread(900, false), thread(1, true), thread(50, true)]);
        assert_eq!(run, Some(Run { worker: thread(50, true), others: 901 }));
        assert_eq!(Run::of(&[thread(900, false)]), None);
    }

    #[test]
    fn files_of_threads() {
        let directory = tempfile::tempdir().expect("a directory");
        let out = directory.path().join("callgrind.out");
        for name in ["callgrind.out", "callgrind.out-01", "callgrind.out-02", "callgrind.out-x", "other-01"] {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        let mut files = by_thread(&out).expect("listed");
        files.sort();
        assert_eq!(files, ["callgrind.out-01", "callgrind.out-02"].map(|name| directory.path().join(name)));
    }

    #[test]
    fn three_percent_either_way() {
        let committed = BTreeMap::from([("plain".to_owned(), 1000.0)]);
        let check = |count: f64| check(&committed, &BTreeMap::from([("plain", count)]));
        assert!(check(1029.0).is_ok() && check(971.0).is_ok());
        assert!(check(1031.0).is_err_and(|e| e.to_string().contains("it was 1000")));
        assert!(check(969.0).is_err_and(|e| e.to_string().contains("--write")));
        assert!(super::check(&BTreeMap::new(), &BTreeMap::from([("plain", 1.0)])).is_err());
    }

    #[test]
    fn numbers_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("instructions.json");
        assert!(read(&path).expect("nothing yet").is_empty());
        write(&path, "quick", &BTreeMap::from([("plain", 1234.4)])).expect("written");
        assert_eq!(read(&path).expect("read"), BTreeMap::from([("plain".to_owned(), 1234.0)]));
    }
}
