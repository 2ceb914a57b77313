//! The log of conflicts of a node of a cluster, in the same file: what lost, under rising numbers.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::Embedded;
use crate::store::StoreError;

/// Number to conflict.
const CONFLICTS: TableDefinition<u64, &[u8]> = TableDefinition::new("conflicts");

impl Embedded {
    /// The log, oldest first.
    pub fn load_conflicts(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.with(|database| match database.begin_read()?.open_table(CONFLICTS) {
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
            Ok(log) => {
                let entries = log.iter()?.map(|entry| entry.map(|(number, conflict)| (number.value(), conflict.value().to_vec())));
                Ok(entries.collect::<Result<_, _>>()?)
            }
        })
    }

    /// Adds to the log, and drops what is before `first`.
    pub fn keep_conflicts(&self, news: &[(u64, Vec<u8>)], first: u64) -> Result<(), StoreError> {
        self.write(|database| {
            let write = database.begin_write()?;
            {
                let mut log = write.open_table(CONFLICTS)?;
                log.retain_in(..first, |_, _| false)?;
                for (number, conflict) in news {
                    log.insert(number, conflict.as_slice())?;
                }
            }
            Ok(write.commit()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_survive() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(directory.path()).expect("a new store");
        assert!(store.load_conflicts().expect("none").is_empty());
        let entry = |number: u64| (number, number.to_string().into_bytes());
        store.keep_conflicts(&[entry(1), entry(2), entry(3)], 1).expect("a commit");
        store.keep_conflicts(&[entry(4)], 3).expect("a commit");
        drop(store);
        let store = Embedded::open(directory.path()).expect("the store");
        assert_eq!(store.load_conflicts().expect("a log"), [entry(3), entry(4)]);
    }
}
