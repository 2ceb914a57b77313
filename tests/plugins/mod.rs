//! Plugins in a running gateway: what unit tests beside them cannot see.

mod proxy_cache;
mod scripted;
