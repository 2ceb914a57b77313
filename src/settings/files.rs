//! What settings name or keep on disk: certificates, templates, the prefix and the node's id.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use uuid::Uuid;

use crate::settings::Settings;
use crate::settings::value::{CipherSuite, LogTarget};

/// Versions of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersions {
    pub tls12: bool,
    pub tls13: bool,
}

/// Bodies of errors, where files replace the usual ones. Two `%s` stand for message and request id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorTemplates {
    pub html: Option<String>,
    pub json: Option<String>,
    pub xml: Option<String>,
    pub plain: Option<String>,
}

/// The PEM text of a certificate or key setting: a path, the text itself, or the text in base64.
pub fn pem(entry: &str) -> Result<String, String> {
    if entry.contains("-----BEGIN") {
        return Ok(entry.to_owned());
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(entry).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(text) = decoded.filter(|text| text.contains("-----BEGIN")) {
        return Ok(text);
    }
    match std::fs::read_to_string(entry) {
        Ok(text) => Ok(text),
        // Keys can be given as text: an entry that is no path is not repeated.
        Err(_) if entry.len() > 255 || entry.contains('\n') => Err("neither a PEM text nor a file".into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!("no such file at {entry}")),
        Err(e) => Err(format!("could not read {entry}: {e}")),
    }
}

/// The prefix when none is set.
pub fn default_prefix() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/troop".into();
    }
    match (variable("XDG_DATA_HOME"), variable("HOME")) {
        (Some(data), _) => data.join("troop"),
        (None, Some(home)) => home.join(".local/share/troop"),
        (None, None) => "/var/lib/troop".into(),
    }
}

impl Settings {
    /// Versions of TLS that clients may use.
    pub fn tls_versions(&self) -> TlsVersions {
        let named = |version: &str| self.ssl_protocols.split_whitespace().any(|v| v == version);
        match self.ssl_cipher_suite {
            CipherSuite::Modern => TlsVersions { tls12: false, tls13: true },
            CipherSuite::Custom => TlsVersions { tls12: named("TLSv1.2"), tls13: named("TLSv1.3") },
            _ => TlsVersions { tls12: named("TLSv1.2"), tls13: named("TLSv1.3") },
        }
    }

    /// A path under the prefix, unless it is absolute.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.prefix.join(relative)
    }

    /// File of a log, if there is one.
    pub fn log_file(&self, target: &LogTarget) -> Option<PathBuf> {
        match target {
            LogTarget::Off => None,
            LogTarget::File(path) => Some(self.path(path)),
        }
    }

    /// The file that names the process of the node that runs in this prefix.
    pub fn pid_file(&self) -> PathBuf {
        self.path("pids/troop.pid")
    }

    pub(super) fn error_template_paths(&self) -> [(&'static str, Option<&Path>); 4] {
        [
            ("error_template_html", self.error_template_html.as_deref()),
            ("error_template_json", self.error_template_json.as_deref()),
            ("error_template_xml", self.error_template_xml.as_deref()),
            ("error_template_plain", self.error_template_plain.as_deref()),
        ]
    }

    /// Reads the templates of errors.
    pub fn error_templates(&self) -> io::Result<ErrorTemplates> {
        let read = |path: &Option<PathBuf>| path.as_ref().map(std::fs::read_to_string).transpose();
        Ok(ErrorTemplates {
            html: read(&self.error_template_html)?,
            json: read(&self.error_template_json)?,
            xml: read(&self.error_template_xml)?,
            plain: read(&self.error_template_plain)?,
        })
    }

    /// The id of this node: the one that is set, else the one under the prefix, which is made at the first call.
    pub fn persistent_node_id(&self) -> io::Result<Uuid> {
        if let Some(id) = self.node_id {
            return Ok(id);
        }
        let path = self.path("node.id");
        match std::fs::read_to_string(&path) {
            Ok(text) => Uuid::try_parse(text.trim())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{}: not a UUID", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let id = Uuid::new_v4();
                std::fs::create_dir_all(&self.prefix)?;
                std::fs::write(&path, format!("{id}\n"))?;
                Ok(id)
            }
            Err(e) => Err(e),
        }
    }
}
