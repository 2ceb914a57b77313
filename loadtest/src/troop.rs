//! Troop itself: built, started with a configuration, stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::admin::Admin;
use crate::documents::{Sinks, document};
use crate::peers::{Listeners, Place, Running};
use crate::scenarios::Setup;
use crate::service::{Service, free_addresses};

/// How long a large document may take, under callgrind too.
const LOADING: Duration = Duration::from_secs(900);

/// Builds the binary and says where it is.
pub async fn build(profile: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = tokio::process::Command::new(cargo);
    command.args(["build", "--package", "troop", "--bin", "troop", "--profile", profile, "--message-format", "json"]);
    command.current_dir(root).kill_on_drop(true);
    let built = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().await.context("cannot run cargo")?;
    ensure!(built.status.success(), "cargo build ended with {}", built.status);
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let of_troop = message["target"]["name"] == "troop";
        message["executable"].as_str().filter(|_| of_troop).map(PathBuf::from)
    };
    String::from_utf8_lossy(&built.stdout).lines().rev().find_map(executable).context("cargo named no executable")
}

/// Why a scenario cannot be measured.
pub enum Refused {
    /// Troop does not have what it needs.
    NotAvailable(String),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A running Troop.
pub struct Troop {
    pub running: Running,
    pub admin: Admin,
    /// The plugins that are on.
    pub plugins: Vec<&'static str>,
}

/// How the configuration gets in, and whether it can be changed by and by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// `database = off` and `POST /config`.
    Declared,
    /// The embedded store and `config db_import`.
    Embedded,
    /// The same, by a node that is the only one of a cluster.
    Clustered,
}

/// A binary and the program that it runs under, if any.
#[derive(Clone)]
pub struct Launch {
    pub binary: PathBuf,
    pub under: Vec<String>,
}

impl Launch {
    fn command(&self, settings: &[(&str, String)], arguments: &[&str]) -> Command {
        let mut words = self.under.iter().map(PathBuf::from).chain([self.binary.clone()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, value) in settings {
            command.env(format!("KONG_{}", name.to_uppercase()), value);
        }
        command
    }

    /// Starts Troop with one worker and a configuration.
    pub async fn start(&self, place: &Place, setup: &Setup, store: Store) -> Result<Troop, Refused> {
        let [http, h2c, https, admin, cluster] = free_addresses()?;
        let folder = place.folder("troop")?;
        let mut settings = vec![
            ("prefix", folder.join("prefix").display().to_string()),
            ("nginx_worker_processes", "1".to_owned()),
            ("proxy_listen", format!("{http} reuseport backlog=16384, {h2c} http2, {https} http2 ssl reuseport backlog=16384")),
            ("admin_listen", admin.to_string()),
            ("status_listen", "off".to_owned()),
            ("database", if store == Store::Declared { "off" } else { "embedded" }.to_owned()),
            ("nginx_admin_client_max_body_size", "256m".to_owned()),
            ("ssl_cert", place.certificate.display().to_string()),
            ("ssl_cert_key", place.key.display().to_string()),
            ("log_level", "warn".to_owned()),
        ];
        let sinks = place.sinks(&folder);
        let file = folder.join("kong.json");
        if store != Store::Declared {
            fs::write(&file, document(setup, setup.plugins, place.upstream, place.live.address, &sinks).to_string())?;
            let plain = Self { binary: self.binary.clone(), under: Vec::new() };
            let import = plain.command(&settings, &["config", "db_import", &file.display().to_string()]).output()?;
            if !import.status.success() {
                return Err(Refused::NotAvailable(String::from_utf8_lossy(&import.stderr).trim().to_owned()));
            }
        }
        if store == Store::Clustered {
            let of_cluster = [("cluster", "on".to_owned()), ("cluster_insecure", "on".to_owned()), ("cluster_listen", cluster.to_string())];
            settings.extend(of_cluster);
        }
        let mut service = Service::start("troop", &mut self.command(&settings, &["start"]), place.cpus.proxy, &folder)?;
        service.listens(http).await?;
        service.listens(admin).await?;
        let mut admin = Admin::new(admin);
        let plugins = chosen(setup, &admin.plugins().await?)?;
        if store == Store::Declared {
            load(&mut admin, setup, &plugins, place, &sinks).await?;
        }
        let listeners = Listeners { http, h2c: Some(h2c), https: Some(https) };
        Ok(Troop { running: Running { listeners, pid: Some(service.id()), service: Some(service) }, admin, plugins })
    }
}

/// Gives a gateway the configuration of a scenario.
pub async fn load(admin: &mut Admin, setup: &Setup, plugins: &[&str], place: &Place, sinks: &Sinks) -> Result<(), Refused> {
    let document = document(setup, plugins, place.upstream, place.live.address, sinks);
    let loading = tokio::time::timeout(LOADING, admin.call("POST", "/config", &document)).await;
    let reply = loading.context("POST /config does not answer")??;
    match reply.status {
        201 => Ok(()),
        400 => Err(Refused::NotAvailable(format!("POST /config: 400 {}", reply.body))),
        status => Err(anyhow::anyhow!("POST /config: {status} {}", reply.body).into()),
    }
}

/// The plugins of a scenario, of those that the gateway has.
pub fn chosen(setup: &Setup, available: &[String]) -> Result<Vec<&'static str>, Refused> {
    let has = |plugin: &str| available.iter().any(|name| name == plugin);
    let (there, missing): (Vec<_>, Vec<_>) = setup.plugins.iter().partition(|plugin| has(plugin));
    if !missing.is_empty() && (!setup.lenient || there.is_empty()) {
        return Err(Refused::NotAvailable(format!("no plugin {}", missing.join(", "))));
    }
    Ok(there)
}

/// Version and size in MB of a binary.
pub fn facts(binary: &Path) -> Result<(String, f64)> {
    let version = Command::new(binary).args(["version", "--all"]).output()?;
    if !version.status.success() {
        bail!("{} version ended with {}", binary.display(), version.status);
    }
    let text = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
    Ok((text, fs::metadata(binary)?.len() as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_plugin_is_said() {
        let available = ["key-auth".to_owned(), "file-log".to_owned()];
        let setup = Setup { routes: 0, consumers: 0, plugins: &["key-auth"], lenient: false };
        assert_eq!(chosen(&setup, &available).ok(), Some(vec!["key-auth"]));
        let setup = Setup { plugins: &["key-auth", "jwt"], ..setup };
        assert!(matches!(chosen(&setup, &available), Err(Refused::NotAvailable(why)) if why == "no plugin jwt"));
        let setup = Setup { plugins: &["statsd", "file-log"], lenient: true, ..setup };
        assert_eq!(chosen(&setup, &available).ok(), Some(vec!["file-log"]));
        let setup = Setup { plugins: &["statsd"], ..setup };
        assert!(chosen(&setup, &available).is_err());
    }
}
