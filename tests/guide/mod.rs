//! The guide's commands, run as written in a network namespace of their own.

use std::path::Path;
use std::process::Command;

use crate::support::program;

#[test]
fn every_command_of_the_guide_that_concerns_what_is_built_works() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guide/guide.sh");
    let output = Command::new("unshare")
        .args(["--net", "--mount", "bash"])
        .arg(script)
        .arg(program())
        .arg(directory.path())
        .output()
        .expect("unshare is there, and may be used (root)");
    let text = String::from_utf8_lossy(&output.stdout);
    let log = std::fs::read_to_string(directory.path().join("troop.log")).unwrap_or_default();
    assert!(output.status.success(), "{text}\n{}\n--- log ---\n{log}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("all of the guide's commands work"), "{text}");
}
