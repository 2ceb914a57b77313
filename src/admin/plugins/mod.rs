//! Endpoints that plugins bring along, one file for each plugin. A plugin that is not enabled brings none.

mod proxy_cache;

use crate::admin::context::Context;
use crate::admin::table::Table;

/// Plugins and what adds their endpoints.
type Brought = (&'static str, fn(&mut Table));

const BROUGHT: &[Brought] = &[("proxy-cache", proxy_cache::endpoints)];

/// Those of the enabled plugins.
pub fn endpoints(table: &mut Table, context: &Context) {
    for (name, add) in BROUGHT {
        if context.plugins.iter().any(|plugin| plugin.name == *name) {
            add(table);
        }
    }
}
