//! Plugins in a running gateway, with the servers that they need: what unit tests beside them cannot see.

mod proxy_cache;
mod redis;
mod scripted;
