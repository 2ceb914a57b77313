//! The answer of a stream.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED};

use crate::http::{Body, Headers, Response};
use crate::proxy::deadline::Deadline;
use crate::proxy::handler::End;
use crate::proxy::server::http2::ledger::Ledger;

/// The head of an answer; `None` when the response is none that can be sent: informational, or without a valid status.
pub fn head_of(response: &Response) -> Option<http::Response<()>> {
    let mut answer = http::Response::new(());
    *answer.status_mut() = http::StatusCode::from_u16(response.status).ok().filter(|s| !s.is_informational())?;
    *answer.headers_mut() = fields_of(&response.headers);
    if response.status == 204 {
        // as nginx does on HTTP/2 alone: what speaks of a body has no meaning without one
        answer.headers_mut().remove(CONTENT_TYPE);
        answer.headers_mut().remove(LAST_MODIFIED);
    }
    Some(answer)
}

/// Fields as HTTP/2 has them: without those that speak of a connection, and without what is no field.
fn fields_of(headers: &Headers) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        let of_connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        if of_connection.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes())) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    fields
}

/// What an answer needs to be sent.
pub struct Sender<'a> {
    pub respond: &'a mut SendResponse<Bytes>,
    pub ledger: &'a Ledger,
    /// Longest wait for the client's window.
    pub limit: Duration,
}

impl Sender<'_> {
    /// Sends an answer, without its body where the request was HEAD. `filter` sees each chunk of the body and whether it is the
    /// last.
    pub async fn send(
        mut self,
        answer: Option<http::Response<()>>,
        head: bool,
        mut body: Body,
        mut filter: impl FnMut(&mut Bytes, bool),
    ) -> End {
        let Some(mut answer) = answer else {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
            return End::UpstreamGone;
        };
        let announced = answer.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        answer.headers_mut().remove(CONTENT_LENGTH);
        let status = answer.status().as_u16();
        if head || matches!(status, 204 | 304) {
            // body filters and the log see that there is none; the length is that of what GET would bring, if it is known
            let length = match &body {
                _ if status == 204 => None,
                _ if announced.is_some() => announced,
                Body::Bytes(bytes) => Some(bytes.len() as u64),
                Body::Empty if status != 304 => Some(0),
                Body::Empty | Body::Stream(_) => None,
            };
            filter(&mut Bytes::new(), true);
            return self.begin(answer, length, true).map_or(End::ClientGone, |_| End::Complete);
        }
        let mut chunk = match &mut body {
            Body::Stream(_) => {
                let Some(stream) = self.begin(answer, announced, false) else { return End::ClientGone };
                let sending = Sending { stream, ledger: self.ledger, limit: self.limit, deadline: None };
                return sending.stream(body, announced, filter).await;
            }
            Body::Bytes(bytes) => std::mem::take(bytes),
            Body::Empty => Bytes::new(),
        };
        filter(&mut chunk, true);
        let Some(stream) = self.begin(answer, Some(chunk.len() as u64), chunk.is_empty()) else { return End::ClientGone };
        if chunk.is_empty() {
            return End::Complete;
        }
        let mut sending = Sending { stream, ledger: self.ledger, limit: self.limit, deadline: None };
        sending.chunk(chunk, true).await.map_or_else(|end| end, |()| End::Complete)
    }

    /// Sends the head; `None` when the stream is gone.
    fn begin(&mut self, mut answer: http::Response<()>, length: Option<u64>, last: bool) -> Option<SendStream<Bytes>> {
        if let Some(length) = length {
            answer.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        self.ledger.useful(answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum());
        self.respond.send_response(answer, last).ok()
    }
}

/// A body on its way to the client.
struct Sending<'a> {
    stream: SendStream<Bytes>,
    ledger: &'a Ledger,
    limit: Duration,
    deadline: Option<Deadline>,
}

impl Sending<'_> {
    /// Sends a body as it comes.
    async fn stream(mut self, mut body: Body, mut left: Option<u64>, mut filter: impl FnMut(&mut Bytes, bool)) -> End {
        loop {
            let polled = poll_fn(|cx| match self.stream.poll_reset(cx) {
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => body.poll_chunk(cx).map(Some),
            });
            let (mut chunk, last) = match polled.await {
                None => return End::ClientGone,
                Some(Some(Ok(chunk))) => (chunk, body.length() == Some(0)),
                Some(Some(Err(_))) => return self.broken().await,
                Some(None) => (Bytes::new(), true),
            };
            filter(&mut chunk, last);
            if let Some(left) = &mut left {
                // more than was announced is malformed
                chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= chunk.len() as u64;
            }
            if last && left.is_some_and(|left| left > 0) {
                return self.broken().await;
            }
            let trailers = match &mut body {
                Body::Stream(source) if last => source.trailers().map(|fields| fields_of(&fields)),
                _ => None,
            };
            if let Err(end) = self.chunk(chunk, last && trailers.is_none()).await {
                return end;
            }
            if let Some(trailers) = trailers {
                return if self.stream.send_trailers(trailers).is_ok() { End::Complete } else { End::ClientGone };
            }
            if last {
                return End::Complete;
            }
        }
    }

    /// Breaks off, so that what was sent is not taken for the whole.
    async fn broken(&mut self) -> End {
        // the reset would overtake what waits to be written: it is the connection's turn first
        tokio::task::yield_now().await;
        self.stream.send_reset(Reason::INTERNAL_ERROR);
        End::UpstreamGone
    }

    /// Sends a chunk as the client's window allows; `Err` when the client is gone, or has taken nothing for too long.
    async fn chunk(&mut self, mut chunk: Bytes, last: bool) -> Result<(), End> {
        self.ledger.useful(chunk.len());
        while !chunk.is_empty() {
            self.stream.reserve_capacity(chunk.len());
            let room = match self.stream.capacity() {
                0 => self.room().await?,
                room => room,
            };
            let piece = chunk.split_to(room.min(chunk.len()));
            let ended = last && chunk.is_empty();
            self.stream.send_data(piece, ended).map_err(|_| End::ClientGone)?;
            if ended {
                return Ok(());
            }
        }
        if last {
            self.stream.send_data(Bytes::new(), true).map_err(|_| End::ClientGone)?;
        }
        Ok(())
    }

    /// Waits for the client's window.
    async fn room(&mut self) -> Result<usize, End> {
        match &mut self.deadline {
            Some(deadline) => deadline.set(self.limit),
            None => self.deadline = Some(Deadline::new(self.limit)),
        }
        let room = poll_fn(|cx| match self.stream.poll_capacity(cx) {
            Poll::Pending if self.deadline.as_mut().is_some_and(|deadline| deadline.poll_passed(cx)) => Poll::Ready(None),
            polled => polled.map(|room| room.and_then(Result::ok)),
        });
        match room.await {
            Some(room) => Ok(room),
            None => {
                // where the stream is gone already, this says nothing to nobody
                self.stream.send_reset(Reason::CANCEL);
                Err(End::ClientGone)
            }
        }
    }
}
