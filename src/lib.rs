//! Troop: an API gateway that speaks Kong's Admin API, configuration and plugin contract.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the commands of the binary |
//! | [`clock`] | the time within one poll of a connection's task |
//! | [`flat_map`] | a persistent hash map that costs few misses of the caches |
//! | [`settings`] | the one table of settings |
//! | [`http`] | HTTP messages: headers, bodies, requests, responses |
//! | [`model`] | the entities and nothing else |
//! | [`catalog`] | rows in memory: indexes, uniqueness, foreign keys, cascades. Pure |
//! | [`store`] | where rows survive a restart |
//! | [`declarative`] | YAML and JSON documents <-> rows |
//! | [`router`] | routes -> an index; request -> route. Pure |
//! | [`balancer`] | which target takes a request. Pure, time passed in |
//! | [`plugin`] | the contract that every plugin fulfils |
//! | [`plugins`] | the plugins, one file each |
//! | [`snapshot`] | the immutable world that one request sees |
//! | [`proxy`] | the data plane: listeners, phases, upstream client |
//! | [`admin`] | the Admin API |
//! | [`actors`] | everything that changes over time, one actor a file |
//! | [`node`] | one node: everything wired, from settings to listeners |

pub mod actors;
pub mod admin;
pub mod balancer;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod declarative;
pub mod flat_map;
pub mod http;
pub mod model;
pub mod node;
pub mod plugin;
pub mod plugins;
pub mod proxy;
pub mod router;
pub mod settings;
pub mod snapshot;
pub mod store;
