//! The sockets of a node, and how TLS is spoken on them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::admin::server::Listener;
use crate::node::StartError;
use crate::node::certificates::{self, Replaceable};
use crate::node::terms;
use crate::node::workers::TlsListeners;
use crate::proxy::server::Bound;
use crate::proxy::server::tls::ByServerName;
use crate::settings::{Listen, Settings};
use crate::snapshot::Snapshot;

/// Binds the proxy's listeners. Those among `bound` that the settings still name are kept.
pub fn proxy(settings: &Settings, mut bound: Vec<Bound>) -> Result<Vec<Bound>, StartError> {
    let workers = settings.workers();
    let failed = |listen: &Listen| {
        let address = listen.address;
        move |error| StartError::Listen { setting: "proxy_listen", address, error }
    };
    let mut sockets = Vec::new();
    for listen in settings.proxy_listen.iter() {
        let kept = bound.iter().position(|b| b.listen == *listen).map(|at| bound.swap_remove(at));
        let mut next = match kept {
            Some(kept) => kept,
            None => Bound::new(listen, workers).map_err(failed(listen))?,
        };
        next.resize(workers).map_err(failed(listen))?;
        sockets.push(next);
    }
    Ok(sockets)
}

/// How the proxy's listeners speak TLS.
pub fn proxy_tls(settings: &Settings, snapshot: &Arc<ArcSwap<Snapshot>>) -> Result<Option<TlsListeners>, StartError> {
    if !settings.proxy_listen.iter().any(|listen| listen.ssl) {
        return Ok(None);
    }
    let own = certificates::own(settings, certificates::Listener::Proxy)?;
    let shown = Arc::new(ByServerName { snapshot: Arc::clone(snapshot), own });
    let terms = terms::tls(settings);
    let server = |http2| terms.server(Arc::clone(&shown) as Arc<_>, http2).map(Arc::new).map_err(unusable);
    Ok(Some(TlsListeners { http1: server(false)?, http2: server(true)? }))
}

/// The listeners of the Admin API or the status API, and their certificate, if one of them speaks TLS.
pub struct Api {
    pub listeners: Vec<Listener>,
    pub certificate: Option<Arc<Replaceable>>,
}

/// Binds the listeners of the Admin API or the status API.
pub fn api(settings: &Settings, of: certificates::Listener) -> Result<Api, StartError> {
    let (setting, listens) = match of {
        certificates::Listener::Status => ("status_listen", &settings.status_listen),
        _ => ("admin_listen", &settings.admin_listen),
    };
    let certificate = match listens.iter().any(|listen| listen.ssl) {
        true => Some(Arc::new(Replaceable(ArcSwap::from(certificates::own(settings, of)?)))),
        false => None,
    };
    let mut listeners = Vec::new();
    for listen in listens.iter() {
        let refused = |error| StartError::Listen { setting, address: listen.address, error };
        let socket = std::net::TcpListener::bind(listen.address).map_err(refused)?;
        let tls = match &certificate {
            Some(certificate) if listen.ssl => {
                Some(terms::tls(settings).server(Arc::clone(certificate) as Arc<_>, listen.http2).map_err(unusable)?)
            }
            _ => None,
        };
        listeners.push(Listener { socket, tls });
    }
    Ok(Api { listeners, certificate })
}

fn unusable(error: rustls::Error) -> StartError {
    StartError::Settings(format!("TLS cannot be spoken: {error}"))
}
