//! The commands and their options.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// An API gateway that speaks Kong's Admin API, configuration and plugin contract.
#[derive(Debug, Parser)]
#[command(name = "troop", version, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// Where a node's settings are.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Place {
    /// Configuration file.
    #[arg(short, long)]
    pub conf: Option<PathBuf>,
    /// Data directory of the node, in place of the setting `prefix`.
    #[arg(short, long)]
    pub prefix: Option<PathBuf>,
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// How much is told.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Verbosity {
    /// Tells where the settings come from.
    #[arg(long = "v")]
    pub verbose: bool,
    /// Tells all settings too, without secrets.
    #[arg(long = "vv")]
    pub debug: bool,
}

/// Options of `start` and `restart`. Those about databases are accepted for scripts that give them: the embedded store
/// needs no migrations.
#[derive(Clone, Debug, ClapArgs)]
pub struct Start {
    #[command(flatten)]
    pub place: Place,
    /// Accepted: the embedded store needs no migrations.
    #[arg(long)]
    pub run_migrations: bool,
    /// Accepted.
    #[arg(long)]
    pub db_timeout: Option<u64>,
    /// Accepted.
    #[arg(long)]
    pub lock_timeout: Option<u64>,
    /// Accepted: there is no nginx.
    #[arg(long)]
    pub nginx_conf: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts the gateway, in the foreground.
    Start(Start),
    /// Stops it: requests under way are finished first.
    Stop {
        #[command(flatten)]
        place: Place,
    },
    /// Stops it, at the latest after `--timeout` seconds.
    Quit {
        #[command(flatten)]
        place: Place,
        /// Seconds that requests under way may take.
        #[arg(short, long, default_value_t = 10.0)]
        timeout: f64,
        /// Seconds to wait before it stops.
        #[arg(short, long, default_value_t = 0.0)]
        wait: f64,
    },
    /// Makes it read its settings and certificates again.
    Reload {
        #[command(flatten)]
        place: Place,
        /// Accepted: there is no nginx.
        #[arg(long)]
        nginx_conf: Option<PathBuf>,
    },
    /// Stops it, if it runs, and starts it.
    Restart(Start),
    /// Says whether it runs.
    Health {
        #[command(flatten)]
        place: Place,
    },
    /// Makes it say that it is not ready, so that load balancers turn away; requests are still served.
    Drain {
        #[command(flatten)]
        place: Place,
    },
    /// Makes the prefix.
    Prepare {
        #[command(flatten)]
        place: Place,
    },
    /// Checks a configuration file.
    Check {
        conf: Option<PathBuf>,
        #[command(flatten)]
        verbosity: Verbosity,
    },
    /// Prints the version.
    Version {
        /// Also those of what it is compatible with.
        #[arg(short, long)]
        all: bool,
    },
    /// Database migrations: the embedded store needs none.
    Migrations {
        #[command(subcommand)]
        command: Migrations,
    },
    /// Declarative configuration.
    Config {
        #[command(subcommand)]
        command: Config,
    },
    /// Certificates of clusters.
    Hybrid {
        #[command(subcommand)]
        command: Hybrid,
    },
    /// Nodes that share their configuration.
    Cluster {
        #[command(subcommand)]
        command: Cluster,
    },
    /// References to secrets.
    Vault {
        #[command(subcommand)]
        command: Vault,
    },
}

/// Options of all `migrations` commands.
#[derive(Clone, Debug, ClapArgs)]
pub struct Migrating {
    #[command(flatten)]
    pub place: Place,
    /// Does it although it seems to be done.
    #[arg(short, long)]
    pub force: bool,
    /// Accepted.
    #[arg(long)]
    pub db_timeout: Option<u64>,
    /// Accepted.
    #[arg(long)]
    pub lock_timeout: Option<u64>,
    /// Accepted.
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Migrations {
    /// Makes the store.
    Bootstrap(Migrating),
    /// Brings the store up to date.
    Up(Migrating),
    /// Finishes what `up` left for later.
    Finish(Migrating),
    /// Lists what was done.
    List(Migrating),
    /// Says the same as JSON.
    Status(Migrating),
    /// Removes all configuration.
    Reset {
        #[command(flatten)]
        migrating: Migrating,
        /// Does not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Writes an example.
    Init {
        /// File to write.
        #[arg(default_value = "kong.yml")]
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Checks a file.
    Parse {
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Adds what a file declares to the store.
    #[command(name = "db_import")]
    DbImport {
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Writes what the store holds to a file.
    #[command(name = "db_export")]
    DbExport {
        /// File to write.
        #[arg(default_value = "kong.yml")]
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub enum Hybrid {
    /// Makes a certificate and key that the nodes of a cluster share.
    #[command(name = "gen_cert")]
    GenCert {
        /// File of the certificate, `cluster.crt` when none is given.
        cert: Option<PathBuf>,
        /// File of the key, `cluster.key` when none is given.
        key: Option<PathBuf>,
        /// Days for which the certificate is good.
        #[arg(short, long, default_value_t = 3 * 365)]
        days: u32,
        #[command(flatten)]
        verbosity: Verbosity,
    },
}

/// A step of replacing a cluster's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// Makes the new authority, which is trusted from now on. The old one still issues certificates.
    Begin,
    /// The new authority issues certificates. The old one is still trusted.
    Switch,
    /// The old authority is no longer trusted.
    Finish,
}

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Makes the authority of a new cluster, and the certificate of its first node.
    Init {
        /// Folder for the files.
        #[arg(short, long, default_value = "cluster")]
        dir: PathBuf,
        /// What the authority is called.
        #[arg(long, default_value = "troop")]
        name: String,
        /// Days for which the node's certificate is good.
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
    /// Prints a token with which another node joins, or one that has a certificate gets a new one. Needs the authority's key.
    Invite {
        /// The id of a node that exists: its certificate is replaced. Unset: another node.
        #[arg(short, long)]
        node: Option<String>,
        /// Folder with the authority.
        #[arg(short, long, default_value = "cluster")]
        dir: PathBuf,
        /// Where the new node finds others: `host:port`, with commas between.
        #[arg(short, long, value_delimiter = ',')]
        seeds: Vec<String>,
        /// Days for which the node's certificate is good.
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
    /// Writes the certificate of a node that was invited.
    Join {
        /// The token, `@` and a file that holds it, or `-` for standard input.
        token: String,
        /// Folder for the files.
        #[arg(short, long, default_value = "cluster")]
        dir: PathBuf,
    },
    /// Replaces the authority, in three steps. After each, every node gets a new certificate with `rotate`.
    Authority {
        step: Step,
        /// Folder with the authority.
        #[arg(short, long, default_value = "cluster")]
        dir: PathBuf,
        /// What the new authority is called.
        #[arg(long, default_value = "troop")]
        name: String,
    },
    /// Replaces the certificate of a node, and the authorities that it trusts. Needs the authority's key.
    Rotate {
        /// Folder with the node's files.
        #[arg(short, long, default_value = "cluster")]
        dir: PathBuf,
        /// Folder with the authority, when it is another.
        #[arg(long)]
        ca: Option<PathBuf>,
        /// Days for which the certificate is good.
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
    /// Asks the node of this machine how the cluster stands.
    Status {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub enum Vault {
    /// Prints the value of a reference: `env/my-secret` or `{vault://env/my-secret}`.
    Get {
        reference: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}
