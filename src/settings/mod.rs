//! The settings of a node: one table, from which everything that reads a setting gets it typed.
//!
//! | module | what it holds |
//! |---|---|
//! | [`table`] | the table: name, type, default, doc; and [`Settings`], which it declares |
//! | [`ignored`] | settings of Kong that have no meaning here |
//! | [`source`] | where values come from: file, environment, command line |
//! | [`value`] | the types of settings and how they are read from text |
//! | [`listen`] | addresses of listeners and their flags |
//! | [`headers`] | which of the gateway's own header fields are sent |
//! | [`check`] | rules over several settings, and what this release refuses |
//! | [`files`] | what settings name or keep on disk: templates, certificates, the node's id |

mod check;
pub mod files;
pub mod headers;
pub mod ignored;
pub mod listen;
pub mod source;
pub mod table;
pub mod value;

pub use headers::{EnabledHeaders, UpstreamHeaders};
pub use ignored::IGNORED;
pub use listen::{Listen, Listeners};
pub use source::{Overrides, Sources};
pub use table::{Settings, TABLE};
pub use value::{Database, Kind, Size, Span, TrustedIps, Workers};

/// Why a name has no effect that no setting has: most likely it is misspelt.
pub const UNKNOWN: &str = "there is no such setting";
/// Why a setting of the table has no effect.
pub const IDLE: &str = "this release does not use it";
const NOT_DECLARED: &str = "it is read with database = off; to bring it into the store use config db_import";

/// One row of the table.
pub struct Setting {
    /// As in `troop.conf`; the environment names are this in capitals after `TROOP_` or `KONG_`.
    pub name: &'static str,
    /// Other names of the same setting.
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    /// As one would write it; empty when unset.
    pub default: &'static str,
    pub doc: &'static str,
    /// Never shown.
    pub secret: bool,
    /// Read and checked, and without effect in this release.
    pub idle: bool,
    /// Takes effect when the settings are read again; others when the node starts.
    pub live: bool,
}

/// A setting of Kong that has no meaning here. It is accepted, shown by the Admin API, and does nothing.
pub struct Ignored {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    /// Why it does nothing.
    pub why: &'static str,
}

/// Why settings cannot be used: every reason at once.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.join("\n"))]
pub struct SettingsError(pub Vec<String>);

impl Settings {
    /// Reads and checks the settings.
    pub fn load(sources: &Sources) -> Result<Self, SettingsError> {
        let mut errors = Vec::new();
        let texts = sources.texts(&mut errors);
        let settings = Self::read(texts, &mut errors);
        match settings {
            Some(mut settings) if errors.is_empty() => {
                if settings.prefix.as_os_str().is_empty() {
                    settings.prefix = files::default_prefix();
                }
                // The node may change its directory; what it was told stays where it was.
                settings.sources = sources.clone();
                settings.prefix = std::path::absolute(&settings.prefix).unwrap_or(settings.prefix);
                check::all(&settings, &mut errors);
                if errors.is_empty() { Ok(settings) } else { Err(SettingsError(errors)) }
            }
            _ => Err(SettingsError(errors)),
        }
    }

    /// Reads the file again. The environment and the command line of a process stay what they were.
    pub fn again(&self) -> Result<Self, SettingsError> {
        Self::load(&self.sources)
    }

    /// Names of settings that differ from those of `before` and take effect only when a node starts.
    pub fn waiting_for_a_restart(&self, before: &Self) -> Vec<&'static str> {
        let text = |settings: &Self, setting: &Setting| settings.texts.get(setting.name).cloned();
        let changed = |setting: &&Setting| !setting.live && text(self, setting) != text(before, setting);
        TABLE.iter().filter(changed).map(|setting| setting.name).collect()
    }

    /// Settings from `name = value` pairs over the defaults, for tests.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, SettingsError> {
        Self::load(&Sources { overrides: pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(), ..Sources::default() })
    }

    /// The file that was read, if there is one.
    pub fn file(&self) -> Option<&std::path::PathBuf> {
        self.sources.chosen_file()
    }

    /// Threads that serve requests.
    pub fn workers(&self) -> usize {
        self.nginx_worker_processes.count()
    }

    /// How names are resolved; `new_dns_client` says which group of settings counts.
    pub fn dns(&self) -> Dns {
        if self.new_dns_client {
            return Dns {
                servers: self.resolver_address.0.clone(),
                hosts_file: self.resolver_hosts_file.clone(),
                order: self.resolver_family.clone(),
                valid_ttl: self.resolver_valid_ttl,
                stale_ttl: self.resolver_stale_ttl,
                not_found_ttl: self.resolver_error_ttl,
                error_ttl: self.resolver_error_ttl,
                cache_size: self.resolver_lru_cache_size,
            };
        }
        Dns {
            servers: self.dns_resolver.0.clone(),
            hosts_file: self.dns_hostsfile.clone(),
            order: self.dns_order.clone(),
            valid_ttl: self.dns_valid_ttl,
            stale_ttl: self.dns_stale_ttl,
            not_found_ttl: self.dns_not_found_ttl,
            error_ttl: self.dns_error_ttl,
            cache_size: self.dns_cache_size,
        }
    }

    /// Names of the plugins that may be configured, out of the `bundled` ones.
    pub fn enabled_plugins<'a>(&'a self, bundled: &[&'a str]) -> Vec<&'a str> {
        let mut enabled = Vec::new();
        for name in &self.plugins {
            match name.as_str() {
                "bundled" => enabled.extend_from_slice(bundled),
                "off" => {}
                name => enabled.push(name),
            }
        }
        enabled.sort_unstable();
        enabled.dedup();
        enabled
    }

    /// The port that clients see for a port of a listener (`port_maps`).
    pub fn external_port(&self, internal: u16) -> u16 {
        self.port_maps.0.iter().find(|(_, to)| *to == internal).map_or(internal, |(from, _)| *from)
    }

    /// All settings as `GET /` of the Admin API shows them, secrets hidden.
    pub fn as_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut shown = serde_json::Map::new();
        for setting in TABLE {
            let text = self.texts.get(setting.name).map_or(setting.default, String::as_str);
            let value = match text {
                "" => setting.kind.unset(),
                _ if setting.secret => Some("******".into()),
                text => Some(setting.kind.json(text)),
            };
            if let Some(value) = value {
                for alias in setting.aliases {
                    shown.insert(alias.to_string(), value.clone());
                }
                shown.insert(setting.name.to_owned(), value);
            }
        }
        for ignored in IGNORED {
            let text = self.texts.get(ignored.name).map_or(ignored.default, String::as_str);
            let secret = ignored.name.contains("password") || ignored.name.ends_with("_key") || ignored.name.ends_with("_token");
            let value = match text {
                "" => ignored.kind.unset(),
                _ if secret => Some("******".into()),
                text => Some(ignored.kind.json(text)),
            };
            if let Some(value) = value {
                shown.insert(ignored.name.to_owned(), value);
            }
        }
        shown.insert("prefix".into(), self.prefix.display().to_string().into());
        for (name, listeners) in
            [("proxy_listeners", &self.proxy_listen), ("admin_listeners", &self.admin_listen), ("status_listeners", &self.status_listen)]
        {
            shown.insert(name.into(), listeners.iter().map(Listen::as_json).collect());
        }
        shown.insert("enabled_headers".into(), self.headers.as_json());
        shown.insert("enabled_headers_upstream".into(), self.headers_upstream.as_json());
        shown
    }

    /// What was set though it does nothing here, each with the reason.
    pub fn without_effect(&self) -> Vec<(&str, &'static str)> {
        let why = |name: &str| {
            if let Some(ignored) = IGNORED.iter().find(|i| i.name == name) {
                return Some(ignored.why);
            }
            match TABLE.iter().find(|s| s.name == name) {
                Some(setting) if setting.idle => Some(IDLE),
                Some(_) if name.starts_with("declarative_config") && self.database != Database::Off => Some(NOT_DECLARED),
                Some(_) => None,
                None if source::is_directive(name) => Some(ignored::NGINX),
                None => Some(UNKNOWN),
            }
        };
        self.given.iter().filter_map(|name| Some((name.as_str(), why(name)?))).collect()
    }
}

impl std::fmt::Debug for Settings {
    /// Names the settings without their values, some of which are secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("prefix", &self.prefix).field("given", &self.given).finish()
    }
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Name servers; those of the system when empty.
    pub servers: Vec<std::net::SocketAddr>,
    pub hosts_file: std::path::PathBuf,
    /// Kinds of record in the order in which they are asked for: `LAST`, `SRV`, `A`, `AAAA`, `CNAME`.
    pub order: Vec<String>,
    /// Seconds; overrides the records' own.
    pub valid_ttl: Option<f64>,
    /// Seconds for which an expired answer is used while it is refreshed.
    pub stale_ttl: f64,
    /// Seconds for which an absent name is remembered.
    pub not_found_ttl: f64,
    /// Seconds for which a failure is remembered.
    pub error_ttl: f64,
    pub cache_size: u64,
}

#[cfg(test)]
mod tests;
