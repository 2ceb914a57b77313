//! The plugins, one file each, and the one table of them.

mod rate_limiting;

use crate::plugin::Descriptor;

/// Every plugin.
pub static PLUGINS: &[Descriptor] = &[Descriptor::of::<rate_limiting::RateLimiting>()];

/// The plugin of that name.
pub fn plugin(name: &str) -> Option<&'static Descriptor> {
    PLUGINS.iter().find(|p| p.name == name)
}
