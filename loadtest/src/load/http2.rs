//! Requests over HTTP/2: several at a time on each connection.

use std::rc::Rc;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::load::Run;
use crate::load::http1::connect;
use crate::load::tls::Client;

/// A request without a body.
pub type Request = http::Request<()>;

/// Bytes that a server may send before it is told to go on.
const WINDOW: u32 = 4 << 20;

/// A connection in clear, opened anew when the server has closed it.
pub async fn clear(run: Rc<Run>, streams: usize) {
    loop {
        match connect(run.plan.address).await {
            Ok(tcp) => {
                if !serve(&run, tcp, streams).await {
                    return;
                }
            }
            Err(_) => run.refused().await,
        }
    }
}

/// The same over TLS.
pub async fn over_tls(run: Rc<Run>, streams: usize, tls: Client) {
    loop {
        let stream = async { tls.connect(connect(run.plan.address).await?).await };
        match stream.await {
            Ok(stream) => {
                if !serve(&run, stream, streams).await {
                    return;
                }
            }
            Err(_) => run.refused().await,
        }
    }
}

/// Requests until the connection ends; false when there are no more.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(run: &Rc<Run>, stream: S, streams: usize) -> bool {
    let builder = client::Builder::new().initial_window_size(WINDOW).initial_connection_window_size(WINDOW).clone();
    let Ok((sender, connection)) = builder.handshake::<_, Bytes>(stream).await else {
        run.refused().await;
        return true;
    };
    let mut tasks = JoinSet::new();
    let connection = tokio::task::spawn_local(connection);
    for _ in 0..streams {
        tasks.spawn_local(requests(Rc::clone(run), sender.clone()));
    }
    drop(sender);
    let mut more = false;
    while let Some(done) = tasks.join_next().await {
        more |= done.unwrap_or(true);
    }
    connection.abort();
    more
}

async fn requests(run: Rc<Run>, mut sender: SendRequest<Bytes>) -> bool {
    while let Some(turn) = run.turn().await {
        match request(&run, &mut sender).await {
            Ok((status, size)) => run.answered(turn, status, size),
            // a server that closes in good order says so, and the request may be sent again elsewhere
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => return true,
            Err(_) => {
                run.failed(turn).await;
                return true;
            }
        }
    }
    false
}

async fn request(run: &Run, sender: &mut SendRequest<Bytes>) -> Result<(u16, u64), h2::Error> {
    let requests = &run.plan.requests.http2;
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (answer, _) = sender.send_request(requests[run.any(requests.len())].clone(), true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut size = 0;
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        size += bytes.len() as u64;
        body.flow_control().release_capacity(bytes.len())?;
    }
    Ok((head.status.as_u16(), size))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::load::{Pace, Plan, Protocol, Requests};

    async fn answer(listener: TcpListener) {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(tcp).await.expect("HTTP/2");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(http::Response::new(()), false).expect("an open stream");
                    body.send_data(Bytes::from_static(b"hello"), true).expect("an open stream");
                }
            });
        }
    }

    #[tokio::test]
    async fn many_requests_at_a_time() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let address = listener.local_addr().expect("bound");
                tokio::task::spawn_local(answer(listener));
                let get = http::Request::get(format!("http://{address}/")).body(()).expect("a request");
                let plan = Plan {
                    protocol: Protocol::Http2(4),
                    address,
                    connections: 2,
                    requests: Requests { http1: Vec::new(), http2: vec![get], answer: 5 }.into(),
                    pace: Pace::Closed,
                    warm_up: Duration::from_millis(20),
                    window: Duration::from_millis(100),
                };
                let tally = crate::load::run(plan.clone(), 0).await.expect("it runs").tally;
                assert!(tally.answers > 10, "{}", tally.answers);
                assert_eq!((tally.failed, tally.not_2xx, tally.wrong), (0, 0, 0));
                let open = Plan { pace: Pace::Open(500.0), warm_up: Duration::ZERO, ..plan };
                let tally = crate::load::run(open, 0).await.expect("it runs").tally;
                assert_eq!((tally.answers, tally.failed), (50, 0));
            })
            .await;
    }
}
