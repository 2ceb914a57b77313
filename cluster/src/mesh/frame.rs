//! Frames on a connection: a length of four bytes, then so many bytes, the first of which says what they are.

use bincode::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::id::NodeId;
use crate::wire::MAX_MESSAGE;

/// The most bytes of a frame before the other side has said who it is.
pub const MAX_HELLO: usize = 4 * 1024;
/// The most bytes of a frame.
pub const MAX_FRAME: usize = MAX_MESSAGE + 16;
/// How much room is made at a time for what has not arrived yet.
const STEP: usize = 64 * 1024;
/// The protocol that this release speaks.
pub const PROTOCOL: u32 = 1;

/// The first frame of each side.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The newest protocol of the sender, and the oldest that it still speaks.
    pub protocol: u32,
    pub oldest: u32,
    pub cluster: String,
    pub node: NodeId,
    /// Where the sender can be reached: host:port.
    pub advertise: String,
    /// The sender only wants to know who is there, and will close the connection.
    pub probe: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Frame {
    Hello(Hello),
    /// Asks whether the other side is there; `sent` comes back.
    Ping {
        sent: u64,
    },
    /// `wall`: the sender's clock, in milliseconds since 1970.
    Pong {
        sent: u64,
        wall: u64,
    },
    /// A message in its wire form.
    Message(Vec<u8>),
    /// A message of the gossip, which only the gossip understands.
    Gossip(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    #[error("a frame of {0} bytes, which is more than is allowed")]
    TooLong(usize),
    #[error("a frame that cannot be decoded")]
    Decode(#[from] bincode::error::DecodeError),
}

impl Frame {
    /// With its length in front.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bincode::encode_into_std_write(self, &mut bytes, bincode::config::standard()).expect("a vector takes every byte");
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let config = bincode::config::standard().with_limit::<{ MAX_FRAME * 2 }>();
        Ok(bincode::decode_from_slice(bytes, config)?.0)
    }
}

/// Reads a frame's bytes; `None` at the end of the connection. Memory grows with what has arrived, not with what is announced.
pub async fn read(reader: &mut (impl AsyncRead + Unpin), max: usize) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length).await {
        Ok(_) => (),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > max {
        return Err(FrameError::TooLong(length));
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let start = bytes.len();
        bytes.resize((start + STEP).min(length), 0);
        reader.read_exact(&mut bytes[start..]).await?;
    }
    Ok(Some(bytes))
}

pub async fn write(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), FrameError> {
    writer.write_all(&frame.encode()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Frame> {
        let hello =
            Hello { protocol: 1, oldest: 1, cluster: "c".into(), node: NodeId(7), advertise: "127.0.0.1:8005".into(), probe: false };
        vec![
            Frame::Hello(hello),
            Frame::Ping { sent: 1 },
            Frame::Pong { sent: 1, wall: 2 },
            Frame::Message(vec![1; 99]),
            Frame::Gossip(vec![2; 9]),
        ]
    }

    #[tokio::test]
    async fn frames_follow_one_another() {
        let bytes: Vec<u8> = samples().iter().flat_map(Frame::encode).collect();
        let mut reader = bytes.as_slice();
        for frame in samples() {
            let read = read(&mut reader, MAX_FRAME).await.expect("a frame").expect("there is one");
            assert_eq!(Frame::decode(&read).expect("a frame"), frame);
        }
        assert!(read(&mut reader, MAX_FRAME).await.expect("the end").is_none());
    }

    #[tokio::test]
    async fn truncated_and_too_long_frames_are_errors() {
        let whole = Frame::Message(vec![1; 300_000]).encode();
        for cut in [3, 4, 5, 70_000, whole.len() - 1] {
            let end = read(&mut &whole[..cut], MAX_FRAME).await;
            assert!(matches!(end, Err(FrameError::Io(_)) | Ok(None)), "{cut}");
        }
        assert!(matches!(read(&mut &whole[..], 1_000).await, Err(FrameError::TooLong(_))));
        assert!(matches!(read(&mut &[0xff; 64][..], MAX_FRAME).await, Err(FrameError::TooLong(_))));
    }
}
