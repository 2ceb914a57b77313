//! The plugins, one file each, and the one table of them.

use crate::plugin::Descriptor;

/// Every plugin.
pub static PLUGINS: &[Descriptor] = &[];

/// The plugin of that name.
pub fn plugin(name: &str) -> Option<&'static Descriptor> {
    PLUGINS.iter().find(|p| p.name == name)
}
