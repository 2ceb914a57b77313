//! What processes have used, from /proc: CPU of every thread to the nanosecond, memory.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// CPU time of all threads of some processes at one moment.
#[derive(Clone, Debug, Default)]
pub struct CpuTimes(BTreeMap<(u32, u32), u64>);

impl CpuTimes {
    /// Of a process and its descendants.
    pub fn of_tree(root: u32) -> Self {
        let mut times = BTreeMap::new();
        for pid in tree(root) {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                // a thread may have ended since the folder was listed
                let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
                times.insert((pid, tid), on_cpu(&text));
            }
        }
        Self(times)
    }

    /// CPU used since an earlier moment. Threads that have ended in between count as nothing.
    pub fn since(&self, before: &Self) -> Duration {
        let used = |(thread, now): (&(u32, u32), &u64)| now.saturating_sub(before.0.get(thread).copied().unwrap_or(0));
        Duration::from_nanos(self.0.iter().map(used).sum())
    }
}

/// CPU time of the calling thread.
pub fn of_this_thread() -> Duration {
    Duration::from_nanos(on_cpu(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default()))
}

/// Nanoseconds on a CPU: the first number of `schedstat`.
fn on_cpu(schedstat: &str) -> u64 {
    schedstat.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Resident memory of a process and its descendants, in MB of 1,000,000 bytes; pages that they share count in each.
pub fn resident_mb(root: u32) -> f64 {
    let of = |pid| fs::read_to_string(format!("/proc/{pid}/status")).map_or(0, |text| resident_kb(&text));
    tree(root).into_iter().map(of).sum::<u64>() as f64 * 1024.0 / 1e6
}

fn resident_kb(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A process and its descendants.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| parent_of(&stat)) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.get(pid).into_iter().flatten());
        at += 1;
    }
    found
}

/// The parent in `stat`, behind the name in parentheses, which may itself hold any character.
fn parent_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc() {
        assert_eq!(on_cpu("123456 789 10\n"), 123_456);
        assert_eq!(on_cpu(""), 0);
        assert_eq!(resident_kb("Name:\tx\nVmRSS:\t    2048 kB\nThreads: 1\n"), 2048);
        assert_eq!(parent_of("42 (a (strange) name) S 7 42 42 0"), Some(7));
    }

    #[test]
    fn only_what_is_new_counts() {
        let before = CpuTimes(BTreeMap::from([((1, 1), 100), ((1, 2), 50)]));
        let after = CpuTimes(BTreeMap::from([((1, 1), 160), ((1, 3), 5)]));
        assert_eq!(after.since(&before), Duration::from_nanos(65));
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(tree(std::process::id()).contains(&std::process::id()));
        assert!(resident_mb(std::process::id()) > 0.1);
    }
}
