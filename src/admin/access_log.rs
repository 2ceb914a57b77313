//! A line for each request, in a file. Lines wait in a bounded queue; those that find it full are dropped and counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::admin::call;
use crate::admin::table::Params;

/// Lines that wait for the disk.
const QUEUE: usize = 1024;
/// Lines that are written together at most.
const TOGETHER: usize = 256;
/// As nginx shows the time.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]");

/// Entities whose rows are named in paths by what a client proves itself with.
const SECRET_NAMES: &[&str] = &["keyauth_credentials", "oauth2_tokens"];

/// The way to a log file.
#[derive(Clone)]
pub struct AccessLog {
    lines: mpsc::Sender<String>,
    dropped: Arc<AtomicU64>,
}

/// What a line says.
pub struct Entry<'a> {
    pub client: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub version: &'a str,
    pub status: u16,
    pub bytes: u64,
    pub agent: &'a str,
}

impl AccessLog {
    /// Opens the file and writes what comes, on the runtime of the caller.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = std::fs::File::options().create(true).append(true).open(path)?;
        let (lines, queue) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        actix_web::rt::spawn(write(tokio::fs::File::from_std(file), queue, path.to_owned(), dropped.clone()));
        Ok(Self { lines, dropped })
    }

    pub fn add(&self, entry: &Entry) {
        let time = OffsetDateTime::now_utc().format(TIME).unwrap_or_default();
        let Entry { client, method, path, version, status, bytes, agent } = entry;
        let agent = agent.replace(|c: char| c == '"' || c.is_control(), "?");
        let line = format!("{client} - - [{time}] \"{method} {path} {version}\" {status} {bytes} \"-\" \"{agent}\"\n");
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn write(mut file: tokio::fs::File, mut queue: mpsc::Receiver<String>, path: PathBuf, dropped: Arc<AtomicU64>) {
    let mut lines = Vec::with_capacity(TOGETHER);
    while queue.recv_many(&mut lines, TOGETHER).await > 0 {
        let text = lines.concat();
        lines.clear();
        let written = match file.write_all(text.as_bytes()).await {
            Ok(()) => file.flush().await,
            failed => failed,
        };
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "access log lines are lost");
        }
        match dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            dropped => tracing::warn!(path = %path.display(), dropped, "access log lines found the queue full"),
        }
    }
}

/// A path as logs may show it: without the query, and without values that are secrets of credentials.
pub fn shown(pattern: &str, params: &Params, path: &str) -> String {
    let is_secret = |(name, value): &&(String, String)| SECRET_NAMES.contains(&name.as_str()) && call::uuid(value).is_none();
    if !params.iter().any(|param| is_secret(&param)) {
        return path.to_owned();
    }
    params.iter().fold(pattern.to_owned(), |path, param| {
        let value = if is_secret(&param) { "******" } else { &param.1 };
        path.replace(&format!("{{{}}}", param.0), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_paths_are_hidden() {
        let params = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Params>();
        let pattern = "/consumers/{consumers}/key-auth/{keyauth_credentials}";
        let by_key = params(&[("consumers", "bob"), ("keyauth_credentials", "hunter2")]);
        assert_eq!(shown(pattern, &by_key, "/consumers/bob/key-auth/hunter2"), "/consumers/bob/key-auth/******");
        let id = "4e13f54a-bbf1-47a8-8777-255fed7116f2";
        let by_id = params(&[("consumers", "bob"), ("keyauth_credentials", id)]);
        let path = format!("/consumers/bob/key-auth/{id}");
        assert_eq!(shown(pattern, &by_id, &path), path);
        assert_eq!(shown("/services/{services}", &params(&[("services", "a b")]), "/services/a%20b"), "/services/a%20b");
    }
}
