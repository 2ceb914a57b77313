//! Appends a record of each request to a file, as a line of JSON.
//!
//! Records go through a queue of at most 10,000 records and 16 MiB a file; a writer behind it appends them in order, in the
//! time that a worker does not spend. When the queue is full, or the file cannot be opened or written, records are dropped:
//! counted in `troop_log_records_dropped_total` and told in the log, never felt by a request. Configurations that name one
//! path share its file. A file that does not exist is made with mode 0644, its folder is not.
//!
//! After a rotation the file is opened anew for each write with `reopen`, otherwise when the node is told to reload (SIGHUP).
//!
//! `custom_fields_by_lua` understands `return` and an expression: literals, tables, operators, the functions of `string` and
//! `math`, and what of `kong.request`, `kong.response`, `kong.service.response`, `kong.client`, `kong.router`, `ngx.var`,
//! `ngx.status`, `ngx.now` and `ngx.time` looks at the request. Anything else is refused when it is configured. A field that
//! fails for a request costs that record.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.

use std::sync::Arc;

use schema::{Record, Violations};
use serde::Deserialize;

use crate::plugin::custom_fields::{CustomFieldsByLua, Recorder};
use crate::plugin::files::File;
use crate::plugin::{ALL_PROTOCOLS, Env, Exchange, Phases, Plugin};

pub struct FileLog {
    file: Arc<File>,
    reopen: bool,
    recorder: Recorder,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Path of the file. The user that the node runs as must be able to write there.
    #[field(matches("^[^%s*&%%\\`][^*&%%\\`]*[^%s*&%%\\`]$"), error("not a valid filename"))]
    path: String,
    /// Opens the file anew for each write, so that it may be moved away meanwhile.
    #[field(default = false)]
    reopen: bool,
    /// Members of the record and the Lua that gives each its value; dots part levels, nil removes.
    custom_fields_by_lua: Option<CustomFieldsByLua>,
}

impl Plugin for FileLog {
    const NAME: &'static str = "file-log";
    const PRIORITY: i32 = 9;
    const PHASES: Phases = Phases::LOG;
    const ALLOWED_PROTOCOLS: &'static [&'static str] = ALL_PROTOCOLS;
    type Config = Config;

    fn new(config: Config, env: &Env) -> Result<Self, Violations> {
        let recorder = Recorder::new(Self::NAME, config.custom_fields_by_lua.as_ref(), env);
        Ok(Self { file: env.handles.files.file(Self::NAME, &config.path, &env.handles.metrics), reopen: config.reopen, recorder })
    }

    fn log(&self, x: &mut Exchange) {
        if let Some(record) = self.recorder.record(x) {
            self.file.append(record, x.timing.answered(), self.reopen);
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};

    use super::*;
    use crate::plugin::testing::{env, exchange, plugin_with, refused};

    #[test]
    fn records_go_to_the_file() {
        let env = env();
        let one: FileLog = plugin_with(json!({"path": "/tmp/log"}), &env);
        let two: FileLog = plugin_with(json!({"path": "/tmp/log", "reopen": true, "custom_fields_by_lua": {"mine": "return 'v'"}}), &env);
        let mut x = exchange("GET", "/a?b=c", &[]);
        one.log(&mut x);
        two.log(&mut x);
        let lines = one.file.lines().take(9);
        let records: Vec<Value> = lines.iter().map(|line| serde_json::from_slice(&line.record).expect("a record is JSON")).collect();
        assert_eq!(lines.iter().map(|line| line.reopen).collect::<Vec<_>>(), [false, true]);
        assert_eq!(records.iter().map(|record| &record["request"]["uri"]).collect::<Vec<_>>(), ["/a?b=c", "/a?b=c"]);
        assert_eq!(records.iter().map(|record| record.get("mine").cloned()).collect::<Vec<_>>(), [None, Some(json!("v"))]);
    }

    #[test]
    fn a_field_that_fails_writes_nothing() {
        let plugin: FileLog = plugin_with(json!({"path": "/tmp/log", "custom_fields_by_lua": {"mine": "return 1 / 0"}}), &env());
        plugin.log(&mut exchange("GET", "/", &[]));
        assert!(plugin.file.lines().is_idle());
    }

    #[test]
    fn bad_configurations() {
        for path in [" /tmp/a", "/tmp/a ", "/tmp/*", "/tmp/%a", "/tmp/`a`", "/tmp/a\\b", "&", ""] {
            assert_eq!(refused::<FileLog>(json!({"path": path})), json!({"config": {"path": "not a valid filename"}}), "{path:?}");
        }
        let with = |source| refused::<FileLog>(json!({"path": "/tmp/a", "custom_fields_by_lua": {"x": source}}));
        let error = "Error parsing function: [string \"return (\"]:1: unexpected symbol near '<eof>'";
        assert_eq!(with("return ("), json!({"config": {"custom_fields_by_lua": error}}));
        let error = "Error parsing function: [string \"return os.getenv('HOME')\"]:1: 'os.getenv' is not supported";
        assert_eq!(with("return os.getenv('HOME')"), json!({"config": {"custom_fields_by_lua": error}}));
    }
}
