//! Declarative configuration: init, parse, import, export.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use schema::{EntitySchema, EntityType, Object};
use serde_json::{Value, json};
use uuid::Uuid;

use super::args::{Config, Place};
use super::{Name, Outcome, api, complain, process, say, settings, wrong};
use crate::actors::catalog::load;
use crate::catalog::{Catalog, Change, Row, Schemas};
use crate::declarative::{self, Document};
use crate::model::{ConsumerGroupConsumer, ENTITIES, Target};
use crate::node;
use crate::settings::Settings;
use crate::settings::value::Database;
use crate::store::{Embedded, Store};

/// What `config init` writes.
const EXAMPLE: &str = include_str!("../../config/declarative.example.yml");
/// Rows that are asked of a running node at once.
const PAGE: usize = 1000;

pub fn run(command: &Config, name: Name) -> Outcome {
    match command {
        Config::Init { file, .. } => init(file),
        Config::Parse { file, place } => parse(file, place),
        Config::DbImport { file, place } => import(file, place, name),
        Config::DbExport { file, place } => export(file, place),
    }
}

fn init(file: &Path) -> Outcome {
    if file.exists() {
        return wrong(format!("{} already exists. Will not overwrite it.", file.display()));
    }
    write(file, EXAMPLE)?;
    Ok(ExitCode::SUCCESS)
}

fn parse(file: &Path, place: &Place) -> Outcome {
    read(file, &schemas(&settings(place)?))?;
    say("parse successful");
    Ok(ExitCode::SUCCESS)
}

fn import(file: &Path, place: &Place, name: Name) -> Outcome {
    let settings = with_store(place)?;
    if let Some(pid) = process::running(&settings) {
        return wrong(format!(
            "{} runs in {} (process {pid}) and has its store open: stop it first, or bring the file in through the Admin API (deck gateway sync)",
            name.title,
            settings.prefix.display()
        ));
    }
    let schemas = schemas(&settings);
    let document = read(file, &schemas)?;
    say("parse successful, beginning import");
    let store = Embedded::open(&settings.prefix)?;
    let planned = load(&store)?.plan(Change::Import(document.rows), &schemas.context());
    match planned {
        Ok(plan) => store.commit(&plan.edits)?,
        Err(e) => return wrong(format!("Failed importing:\n{e}")),
    }
    say("import successful");
    Ok(ExitCode::SUCCESS)
}

fn export(file: &Path, place: &Place) -> Outcome {
    let settings = with_store(place)?;
    if file.exists() {
        return wrong(format!("{} already exists. Will not overwrite it.", file.display()));
    }
    let rows = match process::running(&settings) {
        Some(_) => rows_of_running(&settings)?,
        None => all(&load(&Embedded::open(&settings.prefix)?)?),
    };
    write(file, &declarative::export(&rows))?;
    Ok(ExitCode::SUCCESS)
}

fn schemas(settings: &Settings) -> Schemas {
    node::schemas(settings, node::enabled_plugins(settings))
}

fn with_store(place: &Place) -> anyhow::Result<Settings> {
    let settings = settings(place)?;
    if settings.database == Database::Off { wrong("only works with a database") } else { Ok(settings) }
}

fn read(file: &Path, schemas: &Schemas) -> anyhow::Result<Document> {
    if !file.extension().is_some_and(|e| e == "yml" || e == "yaml" || e == "json") {
        return wrong(format!("Failed parsing:\nunknown file type: {}", file.display()));
    }
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) => return wrong(format!("Failed parsing:\n{}: {e}", file.display())),
    };
    match declarative::parse(&text, &schemas.context()) {
        Ok(document) => {
            document.warnings.iter().for_each(|warning| complain(warning));
            Ok(document)
        }
        Err(e) => wrong(format!("Failed parsing:\n{}", e.listing())),
    }
}

fn all(catalog: &Catalog) -> Vec<Arc<Row>> {
    ENTITIES.iter().flat_map(|entity| catalog.rows(entity.name)).cloned().collect()
}

/// Asks the Admin API of the node that runs.
fn rows_of_running(settings: &Settings) -> anyhow::Result<Vec<Arc<Row>>> {
    let Some(listen) = settings.admin_listen.iter().find(|l| !l.ssl) else {
        return wrong("the node runs, and its Admin API has no listener without TLS: stop the node first");
    };
    let mut rows = Vec::new();
    let mut add = |entity: &'static EntitySchema, path: &str| -> anyhow::Result<()> {
        for mut body in listed(listen.address, path)? {
            let Some(id) = body.get("id").and_then(|id| Uuid::try_parse(id.as_str()?).ok()) else { continue };
            // the Admin API shows some rows with more than they have
            body.retain(|name, _| entity.record.get(name).is_some_and(|field| !field.transient) || entity.ttl && name == "ttl");
            rows.push(Arc::new(Row::new(entity, id, &body)));
        }
        Ok(())
    };
    // targets are shown below their upstreams alone
    for entity in ENTITIES.iter().filter(|entity| entity.admin_api && entity.name != Target::entity().name) {
        add(entity, &format!("/{}", entity.path()))?;
    }
    for upstream in listed(listen.address, "/upstreams")? {
        let upstream = upstream.get("id").and_then(Value::as_str).unwrap_or_default();
        add(Target::entity(), &format!("/upstreams/{upstream}/targets/all"))?;
    }
    // who belongs to a group is shown below the group alone, and without an id; nothing refers to it
    for group in listed(listen.address, "/consumer_groups")? {
        let group = group.get("id").and_then(Value::as_str).unwrap_or_default();
        for consumer in listed(listen.address, &format!("/consumer_groups/{group}/consumers"))? {
            let body = json!({"consumer_group": {"id": group}, "consumer": {"id": consumer.get("id")}, "tags": null});
            let body = body.as_object().cloned().unwrap_or_default();
            rows.push(Arc::new(Row::new(ConsumerGroupConsumer::entity(), Uuid::nil(), &body)));
        }
    }
    Ok(rows)
}

/// A collection of the Admin API, page by page.
fn listed(admin: SocketAddr, path: &str) -> anyhow::Result<Vec<Object>> {
    let mut rows = Vec::new();
    let mut next = Some(format!("{path}?size={PAGE}"));
    while let Some(at) = next {
        let answer = api::call(admin, "GET", &at, "")?;
        if answer.status != 200 {
            return wrong(format!("the Admin API answered GET {at} with {}: {}", answer.status, answer.body.trim_end()));
        }
        let mut page: Object = serde_json::from_str(&answer.body)?;
        rows.extend(serde_json::from_value::<Vec<Object>>(page.remove("data").unwrap_or_default())?);
        next = page.get("next").and_then(Value::as_str).map(str::to_owned);
    }
    Ok(rows)
}

/// Writes a file that only its owner can read: a configuration holds secrets.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    match created.and_then(|mut created| created.write_all(text.as_bytes())) {
        Ok(()) => Ok(()),
        Err(e) => wrong(format!("could not write {}: {e}", file.display())),
    }
}
