//! Rows that live as long as the process.

use super::{Loaded, Store, StoreError};
use crate::catalog::Edit;

/// Keeps nothing.
#[derive(Default)]
pub struct Memory;

impl Store for Memory {
    fn load(&self) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }

    fn commit(&self, _: &[Edit]) -> Result<(), StoreError> {
        Ok(())
    }

    fn name(&self) -> &'static str {
        "off"
    }
}
