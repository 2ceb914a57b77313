//! What always holds, swept after every change in debug builds.

#[cfg(debug_assertions)]
use super::Edit;
use super::{Catalog, Row, table};

/// Catalogs up to this many rows are swept whole after each change; in larger ones only what the change touched.
#[cfg(debug_assertions)]
const SMALL: usize = 300;

impl Catalog {
    /// Sweeps what a change touched, or everything where that is cheap.
    #[cfg(debug_assertions)]
    pub(super) fn check_edits(&self, edits: &[Edit]) {
        if self.tables().map(|table| table.rows.len()).sum::<usize>() <= SMALL {
            self.check_invariants();
            return;
        }
        for edit in edits.iter().take(SMALL) {
            if let Some(row) = self.get(edit.entity().name, &edit.id()) {
                self.check_row(row);
            }
        }
    }

    /// Every index leads to the row that has the value, every parent is there, and nothing else is indexed.
    ///
    /// # Panics
    /// When that is not so: a defect of this program.
    pub fn check_invariants(&self) {
        for table in self.tables() {
            table.check_sizes();
            table.rows.values().filter(|row| !row.expired()).for_each(|row| self.check_row(row));
        }
    }

    fn check_row(&self, row: &Row) {
        let entity = row.schema.name;
        let body = row.object();
        let id = body.get("id").and_then(|id| id.as_str()?.parse().ok());
        assert_eq!(id, Some(row.id), "{row:?} carries its own id");
        for field in self.unique_fields(entity) {
            if let Some(value) = body.get(field).and_then(table::text) {
                let found = self.find(entity, field, &value).map(|row| row.id);
                assert_eq!(found, Some(row.id), "{row:?} answers to its {field}");
            }
        }
        if let Some(found) = self.find_compound(entity, &body) {
            assert_eq!(found.id, row.id, "{row:?} answers to its compound key");
        }
        for (field, parent) in row.schema.record.foreign_keys() {
            if let Some(id) = table::parent(&body, field.name) {
                assert!(self.get(parent, &id).is_some(), "{row:?} has its {}", field.name);
                assert!(self.children(entity, field.name, id).any(|child| child.id == row.id), "{row:?} is found from its {}", field.name);
            }
        }
    }
}
