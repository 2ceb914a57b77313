//! The plugins, one file each, and the one table of them.

mod key_auth;
mod rate_limiting;

use crate::plugin::Descriptor;

/// Every plugin.
pub static PLUGINS: &[Descriptor] = &[Descriptor::of::<key_auth::KeyAuth>(), Descriptor::of::<rate_limiting::RateLimiting>()];

/// The plugin of that name.
pub fn plugin(name: &str) -> Option<&'static Descriptor> {
    PLUGINS.iter().find(|p| p.name == name)
}
