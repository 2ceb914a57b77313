//! The store of a node that needs nothing else: one redb file in `<prefix>/data`.
//!
//! A commit is on the disk when it returns, and is there whole or not at all. Rows carry a checksum and the file knows how
//! many there are, so a file that lost something says so instead of serving what is left.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::{Health, Loaded, Store, StoreError};
use crate::catalog::text::some_fields;
use crate::catalog::{Edit, Row};
use crate::model;

mod conflicts;
pub mod records;

/// (entity, id) to the row in its envelope.
const ROWS: TableDefinition<(&str, u128), &[u8]> = TableDefinition::new("rows");
/// Facts of the file: `format`, `rows`.
const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts");

const FORMAT: u32 = 1;
/// Bytes of the file that are kept in memory. Rows are read once, so there is little to keep.
const CACHE: usize = 4 << 20;
/// Checksum and end of a row, before its text.
const ENVELOPE: usize = 16;

/// The embedded store.
pub struct Embedded {
    path: PathBuf,
    /// Nothing after a failure of the disk, until the file is opened anew.
    database: Mutex<Option<Database>>,
    health: Arc<Health>,
    /// Held while the store is open: a second process is refused.
    _lock: Flock<File>,
}

impl Embedded {
    /// Opens the store of a prefix, or makes it.
    pub fn open(prefix: &Path) -> Result<Self, StoreError> {
        let directory = prefix.join("data");
        let failed = |source| StoreError::Io { path: directory.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let lock = lock(&directory)?;
        let path = directory.join("troop.redb");
        if !path.try_exists().map_err(failed)? {
            create(&path)?;
        }
        let database = open(&path)?;
        Ok(Self { path, database: Mutex::new(Some(database)), health: Arc::default(), _lock: lock })
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How writing to it goes.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Works on the file. After a failure it is opened anew: redb refuses all further writes, and opening goes back to the last
    /// whole commit.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let mut slot = self.database.lock();
        let database = reopened(&mut slot, &self.path)?;
        let done = guarded(&self.path, || work(database));
        if done.is_err() {
            *slot = None;
        }
        done
    }

    /// The same for work that writes.
    fn write<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        self.health.note(self.with(work))
    }
}

impl Store for Embedded {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.with(load)
    }

    fn commit(&self, edits: &[Edit]) -> Result<(), StoreError> {
        self.write(|database| commit(database, edits))
    }

    fn name(&self) -> &'static str {
        "embedded"
    }
}

fn lock(directory: &Path) -> Result<Flock<File>, StoreError> {
    let path = directory.join("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|source| StoreError::Io { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => StoreError::InUse { path: directory.to_owned() },
        errno => StoreError::Io { path, source: errno.into() },
    })
}

/// Makes an empty store under another name and moves it into place, so that a file that is there was whole once.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    let database = Builder::new().set_cache_size(CACHE).create(&new).map_err(|error| explain(path, error.into()))?;
    guarded(path, || {
        let write = database.begin_write()?;
        write.open_table(ROWS)?;
        let mut facts = write.open_table(FACTS)?;
        facts.insert("format", u64::from(FORMAT))?;
        facts.insert("rows", 0)?;
        drop(facts);
        Ok(write.commit()?)
    })?;
    drop(database);
    std::fs::rename(&new, path).map_err(failed)?;
    let directory = path.parent().unwrap_or(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    if path.metadata().map_err(failed)?.len() == 0 {
        return Err(StoreError::Damaged { path: path.to_owned(), reason: "the file is empty".to_owned() });
    }
    let mode = path.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
    }
    let database = guarded(path, || Ok(Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).open(path)?))?;
    let format = guarded(path, || {
        let read = database.begin_read()?;
        Ok(read.open_table(FACTS)?.get("format")?.map(|format| format.value()))
    })?;
    match format {
        Some(format) if format == u64::from(FORMAT) => Ok(database),
        Some(found) => Err(StoreError::Newer { path: path.to_owned(), found: u32::try_from(found).unwrap_or(u32::MAX), known: FORMAT }),
        None => Err(StoreError::Damaged { path: path.to_owned(), reason: "its format is not stated".to_owned() }),
    }
}

fn reopened<'a>(database: &'a mut Option<Database>, path: &Path) -> Result<&'a Database, StoreError> {
    let opened = match database.take() {
        Some(database) => database,
        None => open(path)?,
    };
    Ok(database.insert(opened))
}

fn load(database: &Database) -> Result<Loaded, Failure> {
    let read = database.begin_read()?;
    let stated = read.open_table(FACTS)?.get("rows")?.map_or(0, |rows| rows.value());
    let mut loaded = Loaded::default();
    let mut found = 0;
    for entry in read.open_table(ROWS)?.iter()? {
        let (key, value) = entry?;
        found += 1;
        let (entity, id) = key.value();
        match unwrap(entity, id, value.value())? {
            Ok(row) => loaded.rows.push(Arc::new(row)),
            Err(reason) => loaded.left_out.push(format!("{entity} {}: {reason}", Uuid::from_u128(id))),
        }
    }
    if found != stated {
        return Err(Failure::Damaged(format!("it should hold {stated} rows and holds {found}")));
    }
    Ok(loaded)
}

fn commit(database: &Database, edits: &[Edit]) -> Result<(), Failure> {
    let write = database.begin_write()?;
    {
        let mut rows = write.open_table(ROWS)?;
        let mut facts = write.open_table(FACTS)?;
        let mut count = facts.get("rows")?.map_or(0, |count| count.value());
        for edit in edits {
            let key = (edit.entity().name, edit.id().as_u128());
            match edit {
                Edit::Put(row) => count += u64::from(rows.insert(key, wrap(row).as_slice())?.is_none()),
                Edit::Remove(..) => count -= u64::from(rows.remove(key)?.is_some()),
            }
        }
        facts.insert("rows", count)?;
    }
    Ok(write.commit()?)
}

/// A row in its envelope: checksum, end (0 for none), text.
fn wrap(row: &Row) -> Vec<u8> {
    let end = row.expires().unwrap_or(0).to_le_bytes();
    let mut out = Vec::with_capacity(ENVELOPE + row.text().len());
    out.extend(checksum(row.schema.name, row.id.as_u128(), &end, row.text().as_bytes()).to_le_bytes());
    out.extend(end);
    out.extend(row.text().as_bytes());
    out
}

/// A row out of its envelope. The inner error is a row that is whole and that this version cannot read.
fn unwrap(entity: &str, id: u128, bytes: &[u8]) -> Result<Result<Row, &'static str>, Failure> {
    let damaged = || Failure::Damaged(format!("{entity} {} does not match its checksum", Uuid::from_u128(id)));
    let (sum, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (end, text) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    if checksum(entity, id, end, text) != u64::from_le_bytes(*sum) {
        return Err(damaged());
    }
    let Some(schema) = model::entity(entity) else { return Ok(Err("unknown entity")) };
    let Ok(text) = std::str::from_utf8(text) else { return Ok(Err("not a text")) };
    if some_fields(text, |_| false).is_none() {
        return Ok(Err("not a JSON object"));
    }
    let end = Some(u64::from_le_bytes(*end)).filter(|end| *end != 0);
    Ok(Ok(Row::from_text(schema, Uuid::from_u128(id), text.into()).expiring(end)))
}

fn checksum(entity: &str, id: u128, end: &[u8], text: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    for part in [entity.as_bytes(), &id.to_le_bytes(), end, text] {
        sum.update(part);
    }
    sum.digest()
}

/// What redb says, in two kinds.
enum Failure {
    Redb(Box<redb::Error>),
    Damaged(String),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

/// Runs work on the file. A panic of redb on a damaged file becomes an error like any other.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure::Redb(error))) => Err(explain(path, *error)),
        Ok(Err(Failure::Damaged(reason))) => Err(StoreError::Damaged { path: path.to_owned(), reason }),
        Err(_) => Err(StoreError::Damaged { path: path.to_owned(), reason: "its structure is broken".to_owned() }),
    }
}

fn explain(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path },
        redb::Error::Io(source) if source.kind() != io::ErrorKind::InvalidData && source.kind() != io::ErrorKind::UnexpectedEof => {
            StoreError::Io { path, source }
        }
        error => StoreError::Damaged { path, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
