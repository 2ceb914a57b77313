//! What a node of a cluster keeps in the same file: records in their wire form, which are more than rows (what was deleted, and
//! what is not in effect), and what the node has to remember besides.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{Embedded, FACTS, Failure, ROWS, checksum};
use crate::store::StoreError;

/// (kind, id) to checksum and record.
const RECORDS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("records");
/// Bytes of a checksum.
const SUM: usize = 8;
/// What is kept besides records, under `meta`.
const MEMORY: TableDefinition<&str, &[u8]> = TableDefinition::new("memory");
const META: &str = "meta";
/// A fact of the file: 1 when the rows it held before are records.
const CLUSTERED: &str = "clustered";
/// A fact of the file: how often the node has started.
const GENERATION: &str = "generation";

/// What a record is kept under: kind and id.
pub type Name<'a> = (&'a str, &'a str);

/// A record to keep.
pub trait Kept {
    fn name(&self) -> Name<'_>;

    /// Puts its bytes behind what is there.
    fn write(&self, bytes: &mut Vec<u8>);
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

    /// Gives all records one after the other, at the start; answers what is kept besides.
    pub fn load_records(&self, mut take: impl FnMut(&[u8])) -> Result<Vec<u8>, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            match read.open_table(RECORDS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
                Ok(records) => {
                    for entry in records.iter()? {
                        let (key, value) = entry?;
                        take(unwrap(key.value(), value.value())?);
                    }
                }
            }
            Ok(read.open_table(MEMORY)?.get(META)?.map_or_else(Vec::new, |meta| meta.value().to_vec()))
        })
    }

    /// Makes records durable, takes others out, and keeps what is to be kept besides: all of it or nothing.
    pub fn commit_records<'a>(
        &self,
        put: &[impl Kept],
        removed: impl IntoIterator<Item = Name<'a>>,
        meta: &[u8],
    ) -> Result<(), StoreError> {
        self.write(|database| {
            let write = database.begin_write()?;
            {
                let mut records = write.open_table(RECORDS)?;
                let mut bytes = Vec::new();
                for record in put {
                    bytes.clear();
                    bytes.extend([0; SUM]);
                    record.write(&mut bytes);
                    let (place, written) = bytes.split_at_mut(SUM);
                    place.copy_from_slice(&sum(record.name(), written).to_le_bytes());
                    records.insert(record.name(), bytes.as_slice())?;
                }
                for name in removed {
                    records.remove(name)?;
                }
                write.open_table(MEMORY)?.insert(META, meta)?;
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

fn sum((kind, id): Name<'_>, record: &[u8]) -> u64 {
    checksum(kind, 0, id.as_bytes(), record)
}

fn unwrap<'a>(name: Name<'_>, bytes: &'a [u8]) -> Result<&'a [u8], Failure> {
    let damaged = || Failure::Damaged(format!("the record of {} {} does not match its checksum", name.0, name.1));
    let (stated, record) = bytes.split_first_chunk::<SUM>().ok_or_else(damaged)?;
    if sum(name, record) != u64::from_le_bytes(*stated) {
        return Err(damaged());
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Service(&'static str);

    impl Kept for Service {
        fn name(&self) -> Name<'_> {
            ("services", self.0)
        }

        fn write(&self, bytes: &mut Vec<u8>) {
            bytes.extend(self.0.as_bytes());
        }
    }

    fn loaded(store: &Embedded) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut records = Vec::new();
        let meta = store.load_records(|record| records.push(record.to_vec())).expect("records");
        (records, meta)
    }

    #[test]
    fn records_and_what_is_kept_beside_them_survive() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(directory.path()).expect("a new store");
        assert_eq!(loaded(&store), (vec![], vec![]));
        store.commit_records(&[Service("a"), Service("b")], [], &[7]).expect("a commit");
        store.commit_records(&[] as &[Service], [("services", "a")], &[8]).expect("a commit");
        assert_eq!(store.next_generation().expect("a number"), 1);
        store.become_clustered().expect("a commit");
        drop(store);
        let store = Embedded::open(directory.path()).expect("the store");
        assert_eq!(loaded(&store), (vec![b"b".to_vec()], vec![8]));
        assert_eq!(store.next_generation().expect("a number"), 2);
        assert!(matches!(store.not_clustered(), Err(StoreError::OfACluster { .. })));
    }
}
