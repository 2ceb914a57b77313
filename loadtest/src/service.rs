//! Processes that are started for a measurement, and stopped by their ids whatever happens.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cpu::started_on;
use crate::usage::tree;

/// How long a process may take until it listens: Troop under valgrind is the slowest.
const START: Duration = Duration::from_secs(120);
/// How long it may take to end by itself.
const END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// A running process. Dropping it ends the process and its descendants.
pub struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a command on a CPU; its output goes to `<directory>/<name>.log`.
    pub fn start(name: &'static str, command: &mut Command, cpu: usize, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = started_on(cpu, || command.spawn())?.with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something listens at an address.
    pub async fn listens(&mut self, at: SocketAddr) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(at).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.log());
            }
            if started.elapsed() > START {
                bail!("{} does not listen at {at}:\n{}", self.name, self.log());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether the process is still there.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the process to end and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        signal(self.id(), Signal::SIGTERM);
        let asked = Instant::now();
        while self.runs() {
            if asked.elapsed() > START {
                bail!("{} does not end:\n{}", self.name, self.log());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What the process has written.
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.runs() {
            return;
        }
        let all = tree(self.id());
        signal(self.id(), Signal::SIGTERM);
        let asked = Instant::now();
        while self.runs() && asked.elapsed() < END {
            std::thread::sleep(LOOK);
        }
        if self.runs() {
            all.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
            let _ = self.child.wait();
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // a process that has ended already is what was wanted
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Addresses of 127.0.0.1 that nobody listens on at this moment.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    Ok(std::array::from_fn(|i| addresses[i]))
}

/// Where a program is, looked for in `PATH` and beside the system's own programs.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_handle() {
        let directory = tempfile::tempdir().expect("a directory");
        let cpu = crate::cpu::allowed().expect("CPUs")[0];
        let service = Service::start("sleep", Command::new("sleep").arg("60"), cpu, directory.path()).expect("sleep runs");
        let id = service.id();
        assert!(Path::new(&format!("/proc/{id}")).exists());
        drop(service);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn addresses_differ() {
        let [a, b] = free_addresses().expect("two ports");
        assert_ne!(a, b);
    }
}
