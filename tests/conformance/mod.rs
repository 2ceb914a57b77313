//! Scenarios with the answers that a real Kong 3.10 gave, replayed against a gateway of this build.
//!
//! `conformance.py` drives the gateway; a folder holds scenarios and `golden.json`. Where Troop deliberately answers
//! otherwise, the golden answer here is Troop's and the scenario is named in docs/differences.md.

use std::path::Path;
use std::process::Command;

use crate::support::{Node, free_ports};

/// Runs a folder; panics with what differs.
fn check(folder: &str, settings: &[(&str, &str)], options: &[&str]) {
    let node = Node::start(settings);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    // in order, as rows that are sorted by their addresses are in the golden answers
    let mut ports = free_ports::<10>().map(|address| address.port());
    ports.sort_unstable();
    let ports = ports.map(|port| port.to_string());
    let mut python = Command::new("python3");
    python.arg("conformance.py").arg("check").arg("--scenarios").arg(folder).current_dir(&here);
    python.arg("--admin").arg(format!("http://{}", node.admin)).arg("--proxy").arg(format!("http://{}", node.proxy));
    // a change is live when it is answered: nothing to wait for
    python.arg("--settle").arg("0").arg("--ports").arg(ports[..3].join(",")).arg("--wire-ports").arg(ports[3..7].join(","));
    python.arg("--redis-ports").arg(ports[7..].join(","));
    let tls = format!("https://{}", node.tls);
    python.args(options.iter().map(|o| if *o == "--tls" { vec!["--tls", tls.as_str()] } else { vec![*o] }).collect::<Vec<_>>().concat());
    let output = python.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("python3 runs the scenarios");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{folder}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" passed, 0 failed"), "{folder}: no scenario ran:\n{text}");
}

#[test]
fn core() {
    check("core", &[], &[]);
}

#[test]
fn auth() {
    check("auth", &[], &["--only", "^(?!.*redis)"]);
}

/// On their own: these wait for windows to begin.
#[test]
fn limits_in_redis() {
    check("auth", &[], &["--only", "redis"]);
}

#[test]
fn wire() {
    check("wire", &[], &["--tls"]);
}

#[test]
fn expressions() {
    check("expressions", &[("router_flavor", "expressions")], &["--tls"]);
}

#[test]
fn dbless() {
    check("dbless", &[("database", "off")], &["--dbless"]);
}

#[test]
fn observe() {
    // one worker, as when it was recorded: records of requests that follow each other are in their order
    check("observe", &[("nginx_worker_processes", "1")], &[]);
}
