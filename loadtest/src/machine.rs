//! What a report says about where it was made.

use std::fs;
use std::process::Command;

/// Facts about the machine, as lines of a list.
pub fn facts() -> Vec<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    vec![
        format!("CPU: {}, {cores} cores; memory: {} GB", value(&cpuinfo, "model name", ':'), gigabytes(value(&meminfo, "MemTotal", ':'))),
        format!("system: {}, Linux {}", value(&system, "PRETTY_NAME", '=').trim_matches('"'), kernel.trim()),
        format!("compiler: {}", said_by("rustc", "--version")),
    ]
}

/// The commit that is measured, and whether files differ from it.
pub fn commit() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let git = |arguments: &[&str]| {
        let run = Command::new("git").arg("-C").arg(root).args(arguments).output();
        run.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
    };
    let changed = if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { ", with changes" };
    format!("{}{changed}", git(&["rev-parse", "--short=12", "HEAD"]))
}

fn said_by(program: &str, flag: &str) -> String {
    let run = Command::new(program).arg(flag).output();
    run.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}

/// The first value of that name.
fn value<'a>(text: &'a str, name: &str, separator: char) -> &'a str {
    let pair = text.lines().filter_map(|line| line.split_once(separator)).find(|(n, _)| n.trim() == name);
    pair.map_or("unknown", |(_, value)| value.trim())
}

fn gigabytes(kb: &str) -> u64 {
    kb.trim_end_matches("kB").trim().parse::<u64>().map_or(0, |kb| (kb * 1024).div_ceil(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU\nmodel name\t: Another\n";
        assert_eq!(value(text, "model name", ':'), "Some CPU");
        assert_eq!(value("PRETTY_NAME=\"Debian\"\n", "PRETTY_NAME", '='), "\"Debian\"");
        assert_eq!(value("", "x", ':'), "unknown");
        assert_eq!(gigabytes("24576000 kB"), 26);
    }
}
