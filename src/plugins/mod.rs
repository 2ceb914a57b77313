//! The plugins, one file each, and the one table of them.

mod key_auth;
mod rate_limiting;
mod request_transformer;
mod response_transformer;

use crate::plugin::Descriptor;

/// Every plugin.
#[rustfmt::skip] // one a line
pub static PLUGINS: &[Descriptor] = &[
    Descriptor::of::<key_auth::KeyAuth>(),
    Descriptor::of::<rate_limiting::RateLimiting>(),
    Descriptor::of::<request_transformer::RequestTransformer>(),
    Descriptor::of::<response_transformer::ResponseTransformer>(),
];

/// The plugin of that name.
pub fn plugin(name: &str) -> Option<&'static Descriptor> {
    PLUGINS.iter().find(|p| p.name == name)
}
