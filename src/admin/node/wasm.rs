//! Filter chains: Kong answers them when its WebAssembly is on, which Troop has not.

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::table::{Table, handler};

pub fn endpoints(table: &mut Table) {
    let collections = ["/filter-chains", "/services/{services}/filter-chains", "/routes/{routes}/filter-chains"];
    for path in collections {
        table.put(path, [("GET", handler(refuse)), ("POST", handler(refuse))]);
        let methods = ["GET", "PUT", "PATCH", "DELETE"].map(|method| (method, handler(refuse)));
        table.put(&format!("{path}/{{filter_chains}}"), methods);
    }
    for path in ["/routes/{routes}/filters/all", "/routes/{routes}/filters/enabled", "/routes/{routes}/filters/disabled"] {
        table.set(path, "GET", handler(refuse));
    }
    table.set("/schemas/filters/{name}", "GET", handler(schema));
}

async fn refuse(_: Call) -> Outcome {
    Err(Answer::message(400, "this endpoint is only available when wasm is enabled"))
}

async fn schema(call: Call) -> Outcome {
    Err(Answer::message(404, format!("Filter '{}' not found", call.param("name"))))
}
