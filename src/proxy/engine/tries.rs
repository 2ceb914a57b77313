//! Target, connection, retries: from a request that may go upstream to the head of an answer.

use crate::balancer::Outcome;
use crate::clock;
use crate::http::{Body, BodyError, Method};
use crate::plugin::exchange::Try;
use crate::plugin::{Exchange, Reply};
use crate::proxy::client::{Ask, Failed as ClientFailed, Failure, Origin, TlsOrigin};
use crate::proxy::engine::forward::{Forward, Framing, write_head};
use crate::proxy::engine::{Engine, Failed};
use crate::snapshot::{Picked, ServiceEntry, Snapshot};

impl Engine {
    /// Sends the request upstream, to another target where one fails, until there is the head of an answer. `buffers` is whether
    /// the request's body is read before.
    pub(super) async fn proxy(&self, x: &mut Exchange, snapshot: &Snapshot, service: &ServiceEntry, buffers: bool) -> Result<(), Failed> {
        // plugins may have taken their time
        let begun = if x.chosen.is_empty() { clock::now() } else { clock::read() };
        x.timing.upstream_started = Some(begun);
        if buffers {
            x.request.body.buffer(self.terms.request_buffer).await.map_err(|e| Failed::proxy(refused_body(&e)))?;
        }
        let upgrade = websocket(x);
        let framing = Framing::of(&x.request);
        let idempotent = !matches!(&x.request.method, Method::Post | Method::Patch) && x.request.method.as_str() != "LOCK";
        let mut body = std::mem::take(&mut x.request.body);
        let mut left = service.retries;
        let mut picking = snapshot.picking(x, service);
        loop {
            let asked = if x.tries.is_empty() { begun } else { clock::now() };
            let picked = match picking.next(x).await {
                Ok(picked) => picked,
                Err(reply) if x.tries.is_empty() => return Err(reply.into()),
                Err(_) => return Err(Failed::proxy(Reply::status(503))),
            };
            x.tries.push(Try {
                ip: picked.address.ip(),
                port: picked.address.port(),
                asked,
                started: clock::now(),
                failure: None,
                status: None,
            });
            let failed = match self.attempt(x, service, &picked, upgrade.as_deref(), framing, body).await {
                Ok(()) => {
                    x.timing.upstream_headers = Some(clock::now());
                    let status = x.response.status;
                    if let Some(last) = x.tries.last_mut() {
                        last.status = Some(status);
                    }
                    picking.report(&picked, Outcome::Status(status), asked);
                    if let Some(cookie) = &picking.set_cookie {
                        x.response.headers.append("Set-Cookie", cookie);
                    }
                    return Ok(());
                }
                Err(failed) => failed,
            };
            tracing::warn!(
                upstream = %picked.address, request_id = x.request_id.as_str(), error = %failed.failure, "the upstream gave no answer"
            );
            let (status, sent) = verdict(&failed.failure);
            if let Some(outcome) = outcome(&failed.failure) {
                picking.report(&picked, outcome, asked);
            }
            if let Some(last) = x.tries.last_mut() {
                last.failure = Some(status);
            }
            let again = match failed.body {
                Some(again) if left > 0 && (!sent || idempotent) && retryable(&failed.failure) => again,
                _ => return Err(Failed::proxy(reply_for(&failed.failure, status))),
            };
            body = again;
            left -= 1;
        }
    }

    /// One try; a connection that turns out to be closed by the upstream is replaced by a new one without counting.
    async fn attempt(
        &self,
        x: &mut Exchange,
        service: &ServiceEntry,
        picked: &Picked,
        upgrade: Option<&[u8]>,
        framing: Framing,
        mut body: Body,
    ) -> Result<(), ClientFailed> {
        let tls = match service.tls_for(&x.upstream.scheme) {
            None => None,
            Some(tls) => Some(TlsOrigin { tls, name: server_name(&service.host(x, picked), picked)? }),
        };
        let ask = Ask {
            origin: Origin { address: picked.address, tls },
            timeouts: service.timeouts,
            head: x.request.method == Method::Head,
            upgrade: upgrade.is_some(),
            once: matches!(x.request.method, Method::Post | Method::Patch),
        };
        loop {
            let mut lease = match self.client.lease(&ask).await {
                Ok(lease) => lease,
                Err(failure) => return Err(ClientFailed { failure, reused: false, body: Some(body) }),
            };
            let (via, request_id) = (&self.terms.product, self.terms.request_id_upstream);
            write_head(x, &Forward { host: &service.host(x, picked), upgrade, request_id, via, body: framing }, lease.out());
            match lease.exchange(body, framing == Framing::Chunked, &ask, &mut x.response).await {
                Err(ClientFailed { failure: Failure::Closed, reused: true, body: Some(again) }) if !ask.once => {
                    body = again;
                }
                sent => return sent,
            }
        }
    }
}

/// `(status of the answer, whether the upstream may have seen the request)`
fn verdict(failure: &Failure) -> (u16, bool) {
    match failure {
        Failure::Connect(_) | Failure::Tls(_) => (502, false),
        Failure::ConnectTimeout => (504, false),
        Failure::Closed | Failure::Malformed(_) => (502, true),
        Failure::Timeout => (504, true),
        Failure::RequestBody(error) => (refused_body(error).status, true),
    }
}

fn retryable(failure: &Failure) -> bool {
    !matches!(failure, Failure::Malformed(_) | Failure::RequestBody(_))
}

fn reply_for(failure: &Failure, status: u16) -> Reply {
    match failure {
        Failure::RequestBody(error) => refused_body(error),
        _ => Reply::status(status),
    }
}

/// The answer to a request whose body broke off.
pub(super) fn refused_body(error: &BodyError) -> Reply {
    Reply::status(match error {
        BodyError::TooLarge(_) => 413,
        BodyError::Timeout => 408,
        BodyError::Malformed(_) | BodyError::Incomplete | BodyError::Io(_) => 400,
    })
}

/// The `Upgrade` that is passed on: websocket, over HTTP/1.1.
fn websocket(x: &Exchange) -> Option<Vec<u8>> {
    let headers = &x.request.headers;
    let upgrade = headers.get("upgrade")?;
    let asked =
        headers.get_all("connection").flat_map(|v| v.split(|b| *b == b',')).any(|o| o.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    (asked && upgrade.eq_ignore_ascii_case(b"websocket") && x.request.version == crate::http::Version::Http11).then(|| upgrade.to_vec())
}

/// What a failed try says about the target; nothing when the client broke off.
fn outcome(failure: &Failure) -> Option<Outcome> {
    match failure {
        Failure::Connect(_) | Failure::Tls(_) | Failure::Closed => Some(Outcome::TcpFailure),
        Failure::ConnectTimeout | Failure::Timeout => Some(Outcome::Timeout),
        Failure::Malformed(_) => Some(Outcome::Status(0)),
        Failure::RequestBody(_) => None,
    }
}

fn server_name(host: &str, picked: &Picked) -> Result<rustls::pki_types::ServerName<'static>, ClientFailed> {
    let name = crate::proxy::engine::forward::without_port(host.as_bytes());
    let name = std::str::from_utf8(name).unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    rustls::pki_types::ServerName::try_from(name).map_err(|_| ClientFailed {
        failure: Failure::Tls(std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("no server name for {}", picked.address))),
        reused: false,
        body: None,
    })
}
