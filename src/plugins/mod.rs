//! The plugins, one file each, and the one table of them.

mod acl;
mod basic_auth;
mod bot_detection;
mod correlation_id;
mod cors;
mod file_log;
mod hmac_auth;
mod ip_restriction;
mod jwt;
mod key_auth;
mod prometheus;
mod proxy_cache;
mod rate_limiting;
mod redirect;
mod request_size_limiting;
mod request_termination;
mod request_transformer;
mod response_ratelimiting;
mod response_transformer;

use crate::plugin::Descriptor;

/// Every plugin.
#[rustfmt::skip] // one a line
pub static PLUGINS: &[Descriptor] = &[
    Descriptor::of::<acl::Acl>(),
    Descriptor::of::<basic_auth::BasicAuth>(),
    Descriptor::of::<bot_detection::BotDetection>(),
    Descriptor::of::<correlation_id::CorrelationId>(),
    Descriptor::of::<cors::Cors>(),
    Descriptor::of::<file_log::FileLog>(),
    Descriptor::of::<hmac_auth::HmacAuth>(),
    Descriptor::of::<ip_restriction::IpRestriction>(),
    Descriptor::of::<jwt::Jwt>(),
    Descriptor::of::<key_auth::KeyAuth>(),
    Descriptor::of::<prometheus::Prometheus>(),
    Descriptor::of::<proxy_cache::ProxyCache>(),
    Descriptor::of::<rate_limiting::RateLimiting>(),
    Descriptor::of::<redirect::Redirect>(),
    Descriptor::of::<request_size_limiting::RequestSizeLimiting>(),
    Descriptor::of::<request_termination::RequestTermination>(),
    Descriptor::of::<request_transformer::RequestTransformer>(),
    Descriptor::of::<response_ratelimiting::ResponseRateLimiting>(),
    Descriptor::of::<response_transformer::ResponseTransformer>(),
];

/// The plugin of that name.
pub fn plugin(name: &str) -> Option<&'static Descriptor> {
    PLUGINS.iter().find(|p| p.name == name)
}
