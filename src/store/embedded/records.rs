//! What a node of a cluster keeps in the same file: records in their wire form, which are more than rows (what was deleted, and
//! what is not in effect), and what the node has to remember besides.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{Embedded, FACTS, Failure, ROWS, checksum};
use crate::store::StoreError;

/// (kind, id) to checksum and record.
const RECORDS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("records");
/// What is kept besides records, under `meta`.
const MEMORY: TableDefinition<&str, &[u8]> = TableDefinition::new("memory");
const META: &str = "meta";
/// A fact of the file: 1 when the rows it held before are records.
const CLUSTERED: &str = "clustered";
/// A fact of the file: how often the node has started.
const GENERATION: &str = "generation";

/// What the file holds of a cluster.
#[derive(Default)]
pub struct Records {
    pub records: Vec<Vec<u8>>,
    pub meta: Vec<u8>,
}

/// A durable step: all of it or nothing.
#[derive(Default)]
pub struct Changes {
    /// Kind, id, record.
    pub put: Vec<(String, String, Vec<u8>)>,
    pub removed: Vec<(String, String)>,
    pub meta: Vec<u8>,
}

impl Embedded {
    /// Whether the configuration is kept as records and not as rows.
    pub fn is_clustered(&self) -> Result<bool, StoreError> {
        Ok(self.fact(CLUSTERED)? == 1)
    }

    /// Refuses a file whose rows are not the configuration.
    pub fn not_clustered(self) -> Result<Self, StoreError> {
        if self.is_clustered()? { Err(StoreError::OfACluster { path: self.path }) } else { Ok(self) }
    }

    /// From now on the records are the configuration; the rows go.
    pub fn become_clustered(&self) -> Result<(), StoreError> {
        self.write(|database| {
            let write = database.begin_write()?;
            {
                let mut facts = write.open_table(FACTS)?;
                facts.insert(CLUSTERED, 1)?;
                facts.insert("rows", 0)?;
                write.open_table(ROWS)?.retain(|_, _| false)?;
            }
            Ok(write.commit()?)
        })
    }

    /// All records, once, at the start.
    pub fn load_records(&self) -> Result<Records, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let mut loaded = Records::default();
            match read.open_table(RECORDS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(loaded),
                Err(error) => return Err(error.into()),
                Ok(records) => {
                    for entry in records.iter()? {
                        let (key, value) = entry?;
                        let (kind, id) = key.value();
                        loaded.records.push(unwrap(kind, id, value.value())?);
                    }
                }
            }
            loaded.meta = read.open_table(MEMORY)?.get(META)?.map_or_else(Vec::new, |meta| meta.value().to_vec());
            Ok(loaded)
        })
    }

    /// Makes changes of records durable.
    pub fn commit_records(&self, changes: &Changes) -> Result<(), StoreError> {
        self.write(|database| {
            let write = database.begin_write()?;
            {
                let mut records = write.open_table(RECORDS)?;
                for (kind, id, record) in &changes.put {
                    let mut bytes = sum(kind, id, record).to_le_bytes().to_vec();
                    bytes.extend_from_slice(record);
                    records.insert((kind.as_str(), id.as_str()), bytes.as_slice())?;
                }
                for (kind, id) in &changes.removed {
                    records.remove((kind.as_str(), id.as_str()))?;
                }
                write.open_table(MEMORY)?.insert(META, changes.meta.as_slice())?;
            }
            Ok(write.commit()?)
        })
    }

    /// A number that is higher than all before.
    pub fn next_generation(&self) -> Result<u64, StoreError> {
        let next = self.fact(GENERATION)? + 1;
        self.write(|database| {
            let write = database.begin_write()?;
            write.open_table(FACTS)?.insert(GENERATION, next)?;
            Ok(write.commit()?)
        })?;
        Ok(next)
    }

    fn fact(&self, name: &str) -> Result<u64, StoreError> {
        self.with(|database| Ok(database.begin_read()?.open_table(FACTS)?.get(name)?.map_or(0, |fact| fact.value())))
    }
}

fn sum(kind: &str, id: &str, record: &[u8]) -> u64 {
    checksum(kind, 0, id.as_bytes(), record)
}

fn unwrap(kind: &str, id: &str, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let damaged = || Failure::Damaged(format!("the record of {kind} {id} does not match its checksum"));
    let (stated, record) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    if sum(kind, id, record) != u64::from_le_bytes(*stated) {
        return Err(damaged());
    }
    Ok(record.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_what_is_kept_beside_them_survive() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(directory.path()).expect("a new store");
        assert!(store.load_records().expect("none").records.is_empty());
        let put = |id: &str| ("services".to_owned(), id.to_owned(), id.as_bytes().to_vec());
        let changes = Changes { put: vec![put("a"), put("b")], meta: vec![7], ..Changes::default() };
        store.commit_records(&changes).expect("a commit");
        let removed = vec![("services".to_owned(), "a".to_owned())];
        store.commit_records(&Changes { removed, meta: vec![8], ..Changes::default() }).expect("a commit");
        assert_eq!(store.next_generation().expect("a number"), 1);
        store.become_clustered().expect("a commit");
        drop(store);
        let store = Embedded::open(directory.path()).expect("the store");
        let loaded = store.load_records().expect("records");
        assert_eq!((loaded.records, loaded.meta), (vec![b"b".to_vec()], vec![8]));
        assert_eq!(store.next_generation().expect("a number"), 2);
        assert!(matches!(store.not_clustered(), Err(StoreError::OfACluster { .. })));
    }
}
