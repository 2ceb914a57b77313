//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::bench::Effort;

/// Measures Troop beside other gateways: CPU for each request, requests a second, latencies, memory.
///
/// nginx is needed, as the upstream; HAProxy, Envoy and a Kong that runs already are measured where they are there.
#[derive(Debug, Parser)]
#[command(name = "loadtest")]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Scenarios to run, by name; all when none is given.
    #[arg(long, value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// Rounds in which all gateways take their turns.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Two short rounds: to see that everything works. The figures are worth little.
    #[arg(long)]
    pub quick: bool,
    /// Lists the scenarios and their bars.
    #[arg(long)]
    pub list: bool,
    /// Loads nginx as it answers by itself and says what the generator costs.
    #[arg(long)]
    pub calibrate: bool,
    /// Gateways to measure Troop beside: nginx, haproxy, envoy, kong=PROXY_URL;ADMIN_URL;PID (a Kong without a database that
    /// runs already; without ADMIN_URL it is not configured, without PID its CPU is not known).
    #[arg(long, value_delimiter = ',', default_value = "nginx,haproxy,envoy")]
    pub peers: Vec<String>,
    /// Troop's binary, in place of one that is built with the release profile.
    #[arg(long, global = true)]
    pub troop: Option<PathBuf>,
    /// Folder for the report.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Counts instructions for each request under callgrind.
    Instructions {
        /// Fails when a count differs from the committed one by more than 3 %.
        #[arg(long, conflicts_with = "write")]
        check: bool,
        /// Writes the counts down.
        #[arg(long)]
        write: bool,
        /// Scenarios of requests over HTTP/1.1 to count, for a profile; those of the committed counts when none is given.
        #[arg(long, value_delimiter = ',', conflicts_with_all = ["check", "write"])]
        of: Vec<String>,
        /// Requests of the shorter of two runs.
        #[arg(long, default_value_t = 500)]
        requests: usize,
        /// Cargo profile that Troop is built with; the committed counts are those of the default.
        #[arg(long, default_value = "instructions")]
        profile: String,
        /// Folder in which callgrind's files are left, for callgrind_annotate.
        #[arg(long)]
        keep: Option<PathBuf>,
        /// Counts misses of simulated caches too: 32 KB of first level, 1 MB of second.
        #[arg(long, conflicts_with_all = ["check", "write"])]
        misses: bool,
    },
}

impl Args {
    pub fn effort(&self) -> Effort {
        if self.quick {
            let [window, warm_up] = [700, 200].map(Duration::from_millis);
            return Effort { rounds: self.rounds.min(2), window, warm_up, streams: 200, changes: 100 };
        }
        Effort {
            rounds: self.rounds.max(1),
            window: Duration::from_secs_f64(self.seconds.clamp(0.1, 600.0)),
            warm_up: Duration::from_millis(500),
            streams: 2_000,
            changes: 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line() {
        let args = Args::parse_from(["loadtest", "--scenario", "plain,tls", "--peers", "nginx,kong=http://127.0.0.1:8000;;1", "--quick"]);
        assert_eq!(args.scenario, ["plain", "tls"]);
        assert_eq!(args.peers, ["nginx", "kong=http://127.0.0.1:8000;;1"]);
        assert_eq!(args.effort().rounds, 2);
        let args = Args::parse_from(["loadtest", "instructions", "--check", "--troop", "x"]);
        assert!(matches!(args.command, Some(Command::Instructions { check: true, write: false, .. })));
        assert!(Args::try_parse_from(["loadtest", "instructions", "--check", "--write"]).is_err());
    }
}
