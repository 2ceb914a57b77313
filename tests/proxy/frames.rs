//! A client of HTTP/2 that sends frames as they are, well formed or not.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::standin::Site;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Of SETTINGS and PING.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 32;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status in HEADERS, as the h2 crate writes it on a new connection.
    pub fn status(&self) -> String {
        match self.payload.as_slice() {
            [0x88, ..] => "200".to_owned(),
            [0x8c, ..] => "400".to_owned(),
            // a new entry under the name at index 8, in Huffman's code
            [0x48, length, code @ ..] => {
                let bytes = usize::from(length & 0x7f);
                let bits = code[..bytes].iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
                let (mut at, mut digits) = (8 * bytes, String::new());
                while digits.len() < 3 {
                    let five = bits >> (at - 5) & 31;
                    let (digit, width) = if five < 3 { (five, 5) } else { ((bits >> (at - 6) & 63) - 25 + 3, 6) };
                    digits.push(char::from_digit(digit, 10).unwrap());
                    at -= width;
                }
                digits
            }
            other => panic!("{other:x?}"),
        }
    }

    /// The last stream of a GOAWAY.
    pub fn last_stream(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field section: every field as a literal that is not indexed (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            match text.len() {
                short @ ..127 => bytes.push(short as u8),
                long => {
                    bytes.push(127);
                    let mut rest = long - 127;
                    while rest >= 128 {
                        bytes.push(rest as u8 | 128);
                        rest /= 128;
                    }
                    bytes.push(rest as u8);
                }
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// The field section of a request for this path, with more fields.
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)];
    block(&[&pseudo, more].concat())
}

/// HEADERS of a request without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, request("GET", path, &[]))
}

/// HEADERS of a request of which the body follows.
pub fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, request("POST", path, more))
}

pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// The client's end of a connection.
pub struct Frames(pub TcpStream);

impl Frames {
    pub async fn connect(site: &Site) -> Self {
        Self::connect_to(site.address).await
    }

    pub async fn connect_to(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self(tcp)
    }

    /// Connects and says these settings; the server's settings are read.
    pub async fn with_settings(site: &Site, settings: &[u8]) -> Self {
        let mut frames = Self::connect(site).await;
        frames.begin(settings).await;
        frames
    }

    pub async fn open(site: &Site) -> Self {
        Self::with_settings(site, b"").await
    }

    pub async fn open_to(address: SocketAddr) -> Self {
        let mut frames = Self::connect_to(address).await;
        frames.begin(b"").await;
        frames
    }

    async fn begin(&mut self, settings: &[u8]) {
        self.send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await;
        assert_eq!(self.next().await.map(|f| f.kind), Some(SETTINGS));
        self.send(frame(SETTINGS, ACK, 0, "")).await;
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // a server that refuses may have closed already
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// The next frame; `None` when the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(Frame { kind: head[3], flags: head[4], stream: u32::from_be_bytes(head[5..].try_into().unwrap()), payload })
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("a frame or the end of the connection")
    }

    /// Reads until such a frame comes.
    pub async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let mut others = Vec::new();
        loop {
            match self.next().await {
                Some(frame) if wanted(&frame) => return frame,
                Some(frame) => others.push((frame.kind, frame.stream)),
                None => panic!("closed before the frame came, after {others:?}"),
            }
        }
    }

    /// Reads until the connection is closed; the frames.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// Waits until the server has read everything that was sent so far.
    pub async fn read_by_server(&mut self) {
        self.send(frame(PING, 0, 0, "are here")).await;
        self.until(|f| f.kind == PING && f.flags == ACK && f.payload == b"are here").await;
    }
}
