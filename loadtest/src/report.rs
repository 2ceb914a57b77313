//! The report: Markdown with a table of bars, a table for each scenario, and charts.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bench::{Finding, State};
use crate::chart::{Chart, Item};
use crate::measure::{Metric, Spread, ratio, spread};
use crate::scenarios::{CHANGING, Kind, NGINX, QUIET, TROOP};

/// What stands above the figures.
pub struct Preface {
    /// `2026-01-31`
    pub date: String,
    /// Lines of a list.
    pub facts: Vec<String>,
    pub command: String,
}

/// Writes `<folder>/<name>.md` and its charts; where the page is.
pub fn write(folder: &Path, name: &str, preface: &Preface, findings: &[Finding]) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut pictures = Vec::new();
    for (kind, chart) in charts(findings) {
        let file = format!("{name}-{kind}.svg");
        fs::write(folder.join(&file), chart.svg())?;
        pictures.push((chart.title, file));
    }
    let page = folder.join(format!("{name}.md"));
    fs::write(&page, render(preface, findings, &pictures))?;
    Ok(page)
}

fn render(preface: &Preface, findings: &[Finding], pictures: &[(String, String)]) -> String {
    let mut out = format!("# Load test of {}\n\n", preface.date);
    for fact in &preface.facts {
        let _ = writeln!(out, "- {fact}");
    }
    let _ = write!(out, "\n```sh\n{}\n```\n\n", preface.command);
    out.push_str(
        "CPU is that of all threads of a gateway (`/proc/PID/task/*/schedstat`) for each request. Ratios are those of one round; \
         shown are the median of the rounds and, in parentheses, the least and the greatest. `generator µs` is the CPU of the load \
         generator for each request: where `CPU in use` is near 100 %, the gateway was the bottleneck and not the generator.\n\n",
    );
    bars(&mut out, findings);
    for (title, file) in pictures {
        let _ = write!(out, "![{title}]({file})\n\n");
    }
    for finding in findings {
        scenario(&mut out, finding);
    }
    out
}

/// The table of bars.
fn bars(out: &mut String, findings: &[Finding]) {
    out.push_str("## Bars\n\n| scenario | figure | bar | measured | |\n|---|---|---|---|---|\n");
    for finding in findings {
        for bar in finding.scenario.bars {
            let aim = bar.aim.map(|aim| format!(", aim {aim}")).unwrap_or_default();
            let (measured, verdict) = match (&finding.state, bar.measured(&finding.rounds)) {
                (State::NotAvailable(_), _) => ("-".to_owned(), "not available"),
                (State::Failed(_), _) => ("-".to_owned(), "**failed**"),
                (State::Measured, None) => ("-".to_owned(), "not measured"),
                (State::Measured, Some(measured)) => {
                    let digits = if bar.over.is_some() { 2 } else { bar.metric.digits() };
                    (shown(measured, digits), if bar.reached(measured) { "reached" } else { "**not reached**" })
                }
            };
            let _ = writeln!(out, "| {} | {} | {}{aim} | {measured} | {verdict} |", finding.scenario.name, bar.what, bar.limit);
        }
    }
    out.push('\n');
}

fn shown(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max } = spread;
    if min == max { format!("{median:.digits$}") } else { format!("{median:.digits$} ({min:.digits$} to {max:.digits$})") }
}

/// A scenario's own part.
fn scenario(out: &mut String, finding: &Finding) {
    let _ = write!(out, "## {}\n\n{}.\n\n", finding.scenario.name, finding.scenario.title);
    match &finding.state {
        State::Measured => {}
        State::NotAvailable(why) => {
            let _ = write!(out, "Not available: {why}\n\n");
        }
        State::Failed(why) => {
            let _ = write!(out, "Failed: {why}\n\n");
        }
    }
    let subjects = in_order(finding);
    let all: BTreeSet<Metric> = finding.rounds.iter().flat_map(|round| round.values().flat_map(|sample| sample.keys().copied())).collect();
    let wrong = |metric: &Metric| subjects.iter().any(|s| spread(&finding.rounds, *metric, s).is_some_and(|s| s.max > 0.0));
    let columns: Vec<Metric> = all.into_iter().filter(|metric| !metric.only_when_wrong() || wrong(metric)).collect();
    if !columns.is_empty() {
        let compare = columns.contains(&Metric::CpuUs) && subjects.contains(&NGINX);
        let heads: Vec<&str> = columns.iter().map(|metric| metric.label()).collect();
        let _ = writeln!(out, "| |{} {} |", if compare { " CPU / nginx |" } else { "" }, heads.join(" | "));
        let _ = writeln!(out, "|---|{}{}", if compare { "---|" } else { "" }, "---|".repeat(columns.len()));
        for subject in &subjects {
            let mut cells = Vec::new();
            if compare {
                cells.push(ratio(&finding.rounds, Metric::CpuUs, subject, NGINX).map_or("-".to_owned(), |s| shown(s, 2)));
            }
            cells.extend(columns.iter().map(|metric| {
                let spread = spread(&finding.rounds, *metric, subject);
                spread.map_or("-".to_owned(), |s| format!("{:.*}", metric.digits(), s.median))
            }));
            let _ = writeln!(out, "| {subject} | {} |", cells.join(" | "));
        }
        out.push('\n');
    }
    for note in &finding.notes {
        let _ = writeln!(out, "- {note}");
    }
    let rounds = finding.rounds.len();
    let _ = write!(out, "- {rounds} round{}, {:.0} s\n\n", if rounds == 1 { "" } else { "s" }, finding.took.as_secs_f64());
}

/// Subjects: others first, Troop last.
fn in_order(finding: &Finding) -> Vec<&'static str> {
    let names: BTreeSet<&'static str> = finding.rounds.iter().flat_map(|round| round.keys().copied()).collect();
    let mut names: Vec<&'static str> = names.into_iter().collect();
    names.sort_by_key(|name| (name.starts_with(TROOP), *name != NGINX, *name == CHANGING, *name));
    names
}

/// The charts, by the end of their files' names.
fn charts(findings: &[Finding]) -> Vec<(&'static str, Chart)> {
    let mut charts = Vec::new();
    let mut items = Vec::new();
    for finding in findings.iter().filter(|f| f.scenario.kind == Kind::Requests) {
        for subject in in_order(finding).into_iter().filter(|s| *s != NGINX && !s.contains(',')) {
            if let Some(s) = ratio(&finding.rounds, Metric::CpuUs, subject, NGINX) {
                let label = format!("{}: {subject}", finding.scenario.name);
                items.push(Item { label, value: s.median, range: Some((s.min, s.max)), own: subject == TROOP });
            }
        }
    }
    if !items.is_empty() {
        let title = "CPU for each request, of nginx's (less is better)".to_owned();
        charts.push(("cpu", Chart { title, unit: String::new(), items, mark: Some(1.0) }));
    }
    let rate = |finding: &Finding, subject: &str, own: bool| {
        spread(&finding.rounds, Metric::Rate, subject).map(|s| Item {
            label: format!("{}: {subject}", finding.scenario.name),
            value: s.median,
            range: Some((s.min, s.max)),
            own,
        })
    };
    let routes: Vec<&Finding> = findings.iter().filter(|f| f.scenario.name.starts_with("routes-")).collect();
    let items: Vec<Item> =
        routes.iter().flat_map(|f| in_order(f).into_iter().filter_map(|subject| rate(f, subject, subject == TROOP))).collect();
    if !items.is_empty() {
        let title = "Requests a second with many routes (more is better)".to_owned();
        charts.push(("routes", Chart { title, unit: "/s".to_owned(), items, mark: None }));
    }
    let mut items = Vec::new();
    for finding in findings.iter().filter(|f| f.scenario.kind == Kind::Changing) {
        for (metric, what) in [(Metric::P50, "p50"), (Metric::P99, "p99"), (Metric::P999, "p99.9")] {
            for subject in [QUIET, CHANGING] {
                if let Some(s) = spread(&finding.rounds, metric, subject) {
                    let label = format!("{what}: {subject}");
                    items.push(Item { label, value: s.median, range: Some((s.min, s.max)), own: subject == CHANGING });
                }
            }
        }
    }
    if !items.is_empty() {
        let title = "Latency at 10,000 routes, without and with 100 changes a second".to_owned();
        charts.push(("changes", Chart { title, unit: "ms".to_owned(), items, mark: None }));
    }
    charts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::{Round, Sample};
    use crate::scenarios::scenario;

    fn finding(name: &str, state: State, rounds: Vec<Round>) -> Finding {
        Finding { scenario: scenario(name).expect("a row"), state, rounds, notes: vec!["a note".to_owned()], took: Duration::from_secs(3) }
    }

    fn measured() -> Finding {
        let sample = |cpu, rate| Sample::from([(Metric::CpuUs, cpu), (Metric::Rate, rate), (Metric::Failed, 0.0)]);
        let round = |nginx, troop| Round::from([("nginx", sample(nginx, 100.0)), ("troop", sample(troop, 125.0))]);
        finding("plain", State::Measured, vec![round(10.0, 8.0), round(10.0, 9.0), round(10.0, 9.9)])
    }

    #[test]
    fn a_page() {
        let preface = Preface { date: "2026-01-31".to_owned(), facts: vec!["CPU: x".to_owned()], command: "cargo run".to_owned() };
        let findings =
            [measured(), finding("tls", State::NotAvailable("no listener".to_owned()), vec![]), finding("sse", State::Measured, vec![])];
        let page = render(&preface, &findings, &[("A chart".to_owned(), "x.svg".to_owned())]);
        for line in [
            "- CPU: x",
            "| plain | CPU, of nginx's | ≤ 0.95, aim 0.85 | 0.90 (0.80 to 0.99) | reached |",
            "| plain | memory, MB | ≤ 25 | - | not measured |",
            "| tls | CPU, of nginx's TLS | ≤ 0.8 | - | not available |",
            "| sse | memory of a stream, KB | ≤ 40 | - | not measured |",
            "| | CPU / nginx | CPU µs | requests/s |",
            "| nginx | 1.00 | 10.0 | 100 |",
            "| troop | 0.90 (0.80 to 0.99) | 9.0 | 125 |",
            "Not available: no listener",
            "![A chart](x.svg)",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }

    #[test]
    fn files() {
        let directory = tempfile::tempdir().expect("a directory");
        let preface = Preface { date: "2026-01-31".to_owned(), facts: vec![], command: String::new() };
        let page = write(directory.path(), "2026-01-31", &preface, &[measured()]).expect("written");
        assert!(page.ends_with("2026-01-31.md"));
        let svg = fs::read_to_string(directory.path().join("2026-01-31-cpu.svg")).expect("a chart");
        assert!(svg.contains("plain: troop"));
    }
}
