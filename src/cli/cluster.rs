//! A cluster's certificates, and how it stands.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ::cluster::id::NodeId;
use ::cluster::mesh::ca::{self, JoinToken, Pair};
use ::cluster::mesh::tls::Tls;
use serde_json::Value;

use super::args::{Cluster, Place, Step};
use super::{Outcome, api, complain, say, settings, wrong};

const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
/// The authority that is about to take the place of the one that there is.
const NEXT_CERT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
/// The certificate of the authority that was there before.
const OLD_CERT: &str = "old.crt";
const CERT: &str = "node.crt";
const KEY: &str = "node.key";
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

pub fn run(command: &Cluster) -> Outcome {
    match command {
        Cluster::Init { dir, name, days } => init(dir, name, days_of(*days)),
        Cluster::Invite { node, dir, seeds, days } => invite(node.as_deref(), dir, seeds, days_of(*days)),
        Cluster::Join { token, dir } => join(token, dir),
        Cluster::Authority { step, dir, name } => match step {
            Step::Begin => begin(dir, name),
            Step::Switch => switch(dir),
            Step::Finish => finish(dir),
        },
        Cluster::Rotate { dir, ca, days } => rotate(dir, ca.as_deref().unwrap_or(dir), days_of(*days)),
        Cluster::Status { place } => status(place),
    }
}

fn days_of(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

fn init(dir: &Path, name: &str, life: Duration) -> Outcome {
    absent(dir, &[CA_CERT, CA_KEY, CERT, KEY])?;
    let authority = ca::create(name)?;
    let node = NodeId::random();
    let pair = ca::issue(&authority, node, life)?;
    write(dir, CA_KEY, &authority.key, SECRET)?;
    write(dir, CA_CERT, &authority.certificate, PUBLIC)?;
    write(dir, KEY, &pair.key, SECRET)?;
    write(dir, CERT, &pair.certificate, PUBLIC)?;
    say(&format!("a cluster begins: this node is {node}"));
    tell_settings(dir, &[]);
    let key = dir.join(CA_KEY);
    complain(&format!("keep {} off the nodes: it is needed only when a node is invited or a certificate replaced", key.display()));
    Ok(ExitCode::SUCCESS)
}

fn invite(node: Option<&str>, dir: &Path, seeds: &[String], life: Duration) -> Outcome {
    let node = match node.map(str::parse) {
        None => NodeId::random(),
        Some(Ok(node)) => node,
        Some(Err(_)) => return wrong("the id of a node is expected, as `troop cluster status` shows it"),
    };
    let token = JoinToken::issue(&authority(dir)?, node, seeds.to_vec(), life)?;
    complain(&format!("node {}: the next line is as secret as a private key", token.node));
    say(&token.to_text());
    Ok(ExitCode::SUCCESS)
}

fn join(token: &str, dir: &Path) -> Outcome {
    // Arguments are seen by all users of a machine, so that a token can be given by a file or a pipe.
    let text = match token {
        "-" => std::io::read_to_string(std::io::stdin())?,
        token => match token.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file)?,
            None => token.to_owned(),
        },
    };
    let token = JoinToken::from_text(&text)?;
    absent(dir, &[CA_CERT, CERT, KEY])?;
    write(dir, KEY, &token.pair.key, SECRET)?;
    write(dir, CERT, &token.pair.certificate, PUBLIC)?;
    write(dir, CA_CERT, &token.ca, PUBLIC)?;
    say(&format!("this node is {}", token.node));
    tell_settings(dir, &token.seeds);
    Ok(ExitCode::SUCCESS)
}

fn rotate(dir: &Path, ca: &Path, life: Duration) -> Outcome {
    let authority = authority(ca)?;
    let node = Tls::new(&read(dir, CERT)?, &read(dir, KEY)?, &read(dir, CA_CERT)?)?.node();
    let pair = ca::issue(&authority, node, life)?;
    // The files are complete before a node can read them: it reads them when it is told to.
    write(dir, CA_CERT, &authority.certificate, PUBLIC)?;
    write(dir, KEY, &pair.key, SECRET)?;
    write(dir, CERT, &pair.certificate, PUBLIC)?;
    say(&format!("node {node} has a new certificate; `troop reload` makes it use it"));
    Ok(ExitCode::SUCCESS)
}

/// Makes the next authority. Its certificate stands behind that of the present one, which is the one that issues.
fn begin(dir: &Path, name: &str) -> Outcome {
    absent(dir, &[NEXT_CERT, NEXT_KEY, OLD_CERT])?;
    let own = authority(dir)?.certificate;
    let next = ca::create(name)?;
    write(dir, NEXT_KEY, &next.key, SECRET)?;
    write(dir, NEXT_CERT, &next.certificate, PUBLIC)?;
    write(dir, CA_CERT, &format!("{}\n{}", own.trim_end(), next.certificate), PUBLIC)?;
    say("the new authority is there, and nodes that are rotated from now on trust both");
    tell_rotate("switch");
    Ok(ExitCode::SUCCESS)
}

/// Puts the next authority in the place of the present one. Can be repeated when it has broken off.
fn switch(dir: &Path) -> Outcome {
    let text = |name| Ok::<_, anyhow::Error>(String::from_utf8(read(dir, name)?)?);
    let (next, key) = (text(NEXT_CERT)?, text(NEXT_KEY)?);
    let old = match text(OLD_CERT) {
        Ok(old) => old,
        Err(_) => match text(CA_CERT)?.trim_end().strip_suffix(next.trim_end()) {
            Some(old) => old.to_owned(),
            None => return wrong(format!("{} does not hold {NEXT_CERT}", dir.join(CA_CERT).display())),
        },
    };
    write(dir, OLD_CERT, &old, PUBLIC)?;
    write(dir, CA_CERT, &format!("{}\n{old}", next.trim_end()), PUBLIC)?;
    write(dir, CA_KEY, &key, SECRET)?;
    for name in [NEXT_KEY, NEXT_CERT] {
        std::fs::remove_file(dir.join(name))?;
    }
    say("the new authority issues certificates, and the old one is still trusted");
    tell_rotate("finish");
    Ok(ExitCode::SUCCESS)
}

fn finish(dir: &Path) -> Outcome {
    if dir.join(NEXT_KEY).exists() {
        return wrong("the old authority still issues certificates: troop cluster authority switch comes before".to_owned());
    }
    let old = String::from_utf8(read(dir, OLD_CERT)?)?;
    let both = authority(dir)?.certificate;
    let Some(own) = both.trim_end().strip_suffix(old.trim_end()) else {
        return wrong(format!("{} does not hold {OLD_CERT}", dir.join(CA_CERT).display()));
    };
    write(dir, CA_CERT, own, PUBLIC)?;
    // One is there when the step before broke off at its end.
    let _ = std::fs::remove_file(dir.join(NEXT_CERT));
    std::fs::remove_file(dir.join(OLD_CERT))?;
    say("the old authority is no longer trusted by nodes that are rotated from now on");
    say("on every node: troop cluster rotate, then troop reload");
    Ok(ExitCode::SUCCESS)
}

fn tell_rotate(next: &str) {
    say("on every node: troop cluster rotate, then troop reload");
    say(&format!("when all nodes have done so: troop cluster authority {next}"));
}

fn tell_settings(dir: &Path, seeds: &[String]) {
    let path = |name| std::path::absolute(dir.join(name)).unwrap_or_else(|_| dir.join(name)).display().to_string();
    say("settings of the node:\n");
    say("cluster = on");
    say(&format!("cluster_cert = {}\ncluster_cert_key = {}\ncluster_ca_cert = {}", path(CERT), path(KEY), path(CA_CERT)));
    if !seeds.is_empty() {
        say(&format!("cluster_seeds = {}", seeds.join(", ")));
    }
}

fn authority(dir: &Path) -> anyhow::Result<Pair> {
    let text = |name| Ok::<_, anyhow::Error>(String::from_utf8(read(dir, name)?)?);
    Ok(Pair { certificate: text(CA_CERT)?, key: text(CA_KEY)? })
}

fn read(dir: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let path = dir.join(name);
    std::fs::read(&path).or_else(|error| wrong(format!("could not read {}: {error}", path.display())))
}

fn absent(dir: &Path, names: &[&str]) -> anyhow::Result<()> {
    match names.iter().map(|name| dir.join(name)).find(|path| path.exists()) {
        Some(path) => wrong(format!("{} already exists. Will not overwrite it.", path.display())),
        None => Ok(()),
    }
}

/// Writes a file whole or not at all.
fn write(dir: &Path, name: &str, text: &str, mode: u32) -> anyhow::Result<()> {
    let path = dir.join(name);
    let new = dir.join(format!("{name}.new"));
    let written = || {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let _ = std::fs::remove_file(&new);
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?.write_all(text.as_bytes())?;
        std::fs::rename(&new, &path)
    };
    written().or_else(|error: std::io::Error| wrong(format!("could not write {}: {error}", path.display())))
}

/// Success when this node and all that it sees are ready.
fn status(place: &Place) -> Outcome {
    let settings = settings(place)?;
    let Some(listen) = settings.admin_listen.iter().find(|listen| !listen.ssl) else {
        return wrong("the Admin API has no listener without TLS to ask");
    };
    let answer = match api::call(listen.address, "GET", "/cluster/status", "") {
        Ok(answer) => answer,
        Err(error) => return wrong(format!("the Admin API at {} does not answer: {error}", listen.address)),
    };
    if answer.status != 200 {
        return wrong(format!("the node says {}: {}; is it started with cluster = on?", answer.status, answer.body.trim_end()));
    }
    let status: Value = serde_json::from_str(&answer.body)?;
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    say(&format!("{:36}  {:20}  {:5}  {:5}  {:>8}  {:10}  {}", "id", "name", "alive", "ready", "lag ms", "version", "digest"));
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    for node in &nodes {
        let [id, name, alive, ready, lag, version, digest] =
            ["id", "name", "alive", "ready", "lag", "version", "digest"].map(|field| text(&node[field]));
        say(&format!("{id:36}  {name:20}  {alive:5}  {ready:5}  {lag:>8}  {version:10}  {digest}"));
    }
    let well = nodes.iter().all(|node| node["alive"] == true && node["ready"] == true);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
