//! The listeners of the Admin API and of the status API.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};

use crate::admin::access_log::AccessLog;
use crate::admin::context::Context;
use crate::admin::table::Table;
use crate::admin::transport::{self, Surface};
use crate::admin::{entities, node, overrides, plugins};

/// A bound socket, with TLS when its settings say `ssl`.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Option<rustls::ServerConfig>,
}

/// Serves the Admin API, with a line in `log` for each request. The server runs when the future is awaited or spawned, and stops
/// by its handle.
pub fn admin(context: Arc<Context>, listeners: Vec<Listener>, log: Option<AccessLog>) -> io::Result<Server> {
    let table = admin_table(&context);
    serve(context, table, listeners, log)
}

/// Serves the status API: what may be asked without the right to change anything.
pub fn status(context: Arc<Context>, listeners: Vec<Listener>, log: Option<AccessLog>) -> io::Result<Server> {
    let table = status_table(&context);
    serve(context, table, listeners, log)
}

/// All endpoints of the Admin API.
pub fn admin_table(context: &Context) -> Table {
    let mut table = Table::default();
    entities::endpoints(&mut table);
    overrides::endpoints(&mut table);
    node::endpoints(&mut table, context);
    plugins::endpoints(&mut table, context);
    node::root::list_endpoints(&mut table);
    table
}

/// The endpoints of the status API.
pub fn status_table(context: &Context) -> Table {
    let mut table = Table::default();
    node::status::endpoints(&mut table);
    node::status::ready_endpoints(&mut table);
    node::metrics::endpoints(&mut table);
    if context.options.dbless {
        overrides::health_endpoints(&mut table);
    }
    table
}

fn serve(context: Arc<Context>, table: Table, listeners: Vec<Listener>, log: Option<AccessLog>) -> io::Result<Server> {
    let surface = web::Data::new(Surface { context, table: Arc::new(table), log });
    let app = move || App::new().app_data(surface.clone()).default_service(web::to(transport::serve));
    let mut server = HttpServer::new(app)
        .workers(1)
        .disable_signals()
        .keep_alive(Duration::from_secs(75))
        .client_request_timeout(Duration::from_secs(60))
        .shutdown_timeout(10);
    for Listener { socket, tls } in listeners {
        server = match tls {
            Some(tls) => server.listen_rustls_0_23(socket, tls)?,
            None => server.listen(socket)?,
        };
    }
    Ok(server.run())
}
