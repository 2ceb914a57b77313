//! WebSocket messages of one size: a client that sends one and waits for its echo, and the echo (RFC 6455).

use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::Run;
use crate::load::http1::connect;
use crate::load::response::head;

/// Bytes of a message; below 126, so that every frame has the short form.
pub const MESSAGE: usize = 120;
/// The key of the RFC's example, and the answer to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const TEXT_FRAME: u8 = 0x81;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a client sends it.
fn masked(message: &[u8; MESSAGE]) -> Vec<u8> {
    let mut frame = vec![TEXT_FRAME, MASKED | MESSAGE as u8];
    frame.extend_from_slice(&MASK);
    frame.extend(message.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame as a server sends it.
fn unmasked(frame: &[u8]) -> Result<Vec<u8>> {
    let [TEXT_FRAME, length, mask @ .., _] = frame.get(..7).unwrap_or_default() else {
        return Err(ErrorKind::InvalidData.into());
    };
    if *length != MASKED | MESSAGE as u8 {
        return Err(Error::new(ErrorKind::InvalidData, "a message of another size"));
    }
    let mut out = vec![TEXT_FRAME, MESSAGE as u8];
    out.extend(frame[6..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(out)
}

/// A connection that sends messages, opened anew when it has ended.
pub async fn messages(run: Rc<Run>) {
    let frame = masked(&[b'm'; MESSAGE]);
    loop {
        match open(&run).await {
            Ok(mut stream) => {
                let mut echo = [0; MESSAGE + 2];
                while let Some(turn) = run.turn().await {
                    let exchange = async {
                        stream.write_all(&frame).await?;
                        stream.read_exact(&mut echo).await
                    };
                    if exchange.await.is_err() || echo[..2] != [TEXT_FRAME, MESSAGE as u8] {
                        run.failed(turn).await;
                        break;
                    }
                    run.answered(turn, 200, MESSAGE as u64);
                }
            }
            Err(_) => run.refused().await,
        }
    }
}

async fn open(run: &Run) -> Result<TcpStream> {
    let mut stream = connect(run.plan.address).await?;
    stream.write_all(&run.plan.requests.http1[0]).await?;
    let (mut buffer, mut filled) = ([0; 4096], 0);
    loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
        match head(&buffer[..filled])? {
            None => {}
            Some(head) if head.status == 101 && head.len == filled => return Ok(stream),
            Some(_) => return Err(Error::new(ErrorKind::InvalidData, "protocols were not switched")),
        }
    }
}

/// The answer to a request for a WebSocket.
pub fn switched() -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n")
}

/// Sends every message back until the client has gone.
pub async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<()> {
    let mut frame = [0; MESSAGE + 6];
    loop {
        stream.read_exact(&mut frame).await?;
        stream.write_all(&unmasked(&frame)?).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let mut message = [b'x'; MESSAGE];
        message[..5].copy_from_slice(b"hello");
        let frame = masked(&message);
        assert_eq!(frame.len(), MESSAGE + 6);
        assert_ne!(&frame[6..11], b"hello");
        let echo = unmasked(&frame).expect("a frame");
        assert_eq!((&echo[..2], &echo[2..]), (&[0x81, 120][..], &message[..]));
        assert!(unmasked(&frame[..6]).is_err());
        assert!(unmasked(&[0x81, 0x05, 0, 0, 0, 0, 0]).is_err());
    }
}
