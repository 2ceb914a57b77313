//! Declarative configuration: init, parse, import, export.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use schema::Object;
use uuid::Uuid;

use super::args::{Config, Place};
use super::{Name, Outcome, api, complain, process, say, settings, wrong};
use crate::actors::catalog::load;
use crate::catalog::{Catalog, Change, Row, Schemas};
use crate::declarative::{self, Document};
use crate::model::ENTITIES;
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
    std::fs::write(file, EXAMPLE)?;
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
    std::fs::write(file, declarative::export(&rows))?;
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

/// Asks the Admin API of the node that runs, page by page.
fn rows_of_running(settings: &Settings) -> anyhow::Result<Vec<Arc<Row>>> {
    let Some(listen) = settings.admin_listen.iter().find(|l| !l.ssl) else {
        return wrong("the node runs, and its Admin API has no listener without TLS: stop the node first");
    };
    let mut rows = Vec::new();
    for entity in ENTITIES.iter() {
        let mut path = Some(format!("/{}?size={PAGE}", entity.name));
        while let Some(page) = path {
            let answer = api::call(listen.address, "GET", &page, "")?;
            if answer.status == 404 {
                break;
            }
            let mut page: Object = serde_json::from_str(&answer.body)?;
            let listed = page.remove("data").and_then(|data| serde_json::from_value::<Vec<Object>>(data).ok()).unwrap_or_default();
            for body in listed {
                if let Some(id) = body.get("id").and_then(|id| Uuid::try_parse(id.as_str()?).ok()) {
                    rows.push(Arc::new(Row::new(entity, id, &body)));
                }
            }
            path = page.get("next").and_then(|next| next.as_str()).map(str::to_owned);
        }
    }
    Ok(rows)
}
