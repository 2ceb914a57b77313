//! Which CPU does what: the proxy has one to itself, load and upstream have another.

use anyhow::{Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// CPUs by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    pub proxy: usize,
    pub load: usize,
    /// The same as `load` on a machine of two.
    pub upstream: usize,
}

impl Cpus {
    /// The first CPUs that this process may use.
    pub fn of_machine() -> Result<Self> {
        Self::of(&allowed()?)
    }

    /// The same, or one for everything: for what is counted and not timed.
    pub fn at_least_one() -> Result<Self> {
        let all = allowed()?;
        Self::of(&all).or_else(|_| Self::of(&[all[0], all[0]]))
    }

    fn of(all: &[usize]) -> Result<Self> {
        ensure!(all.len() >= 2, "two CPUs are needed: one for the proxy, one for load and upstream");
        Ok(Self { proxy: all[0], load: all[1], upstream: *all.get(2).unwrap_or(&all[1]) })
    }
}

/// CPUs that this process may use; there is always one.
pub fn allowed() -> Result<Vec<usize>> {
    let may = sched_getaffinity(SELF)?;
    Ok((0..CpuSet::count()).filter(|cpu| may.is_set(*cpu).unwrap_or(false)).collect())
}

/// Keeps the calling thread, and what it starts from now on, on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(SELF, &set)?)
}

/// Runs `start` on a CPU, so that a process which it starts stays there with all its threads.
pub fn started_on<T>(cpu: usize, start: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(SELF)?;
    pin(cpu)?;
    let started = start();
    sched_setaffinity(SELF, &before)?;
    Ok(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_alone() {
        assert!(Cpus::of(&[3]).is_err());
        assert_eq!(Cpus::of(&[0, 1]).expect("two"), Cpus { proxy: 0, load: 1, upstream: 1 });
        assert_eq!(Cpus::of(&[2, 4, 5, 7]).expect("four"), Cpus { proxy: 2, load: 4, upstream: 5 });
    }
}
