//! The PROXY protocol, versions 1 and 2: what a load balancer in front says of the client, before the client's first byte.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line of version 1, its end included.
const LINE: usize = 107;
/// Longest part of version 2 after its fixed beginning: addresses, and room for what some balancers add.
const ADDRESSES: usize = 4096;
/// Bytes that tell the versions apart, as many as version 2 begins with.
const BEGINNING: usize = 12;

/// Reads a header, and not a byte more. `None` where it names no client: the balancer speaks for itself.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    let mut header = vec![0; BEGINNING];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        more(stream, &mut header, 4).await?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > ADDRESSES {
            return Err(malformed("too long"));
        }
        more(stream, &mut header, length).await?;
        let parsed = v2::Header::try_from(header.as_slice()).map_err(malformed)?;
        return Ok(match (parsed.command, parsed.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(a)) => {
                Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into()))
            }
            (v2::Command::Proxy, v2::Addresses::IPv6(a)) => {
                Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into()))
            }
            _ => None,
        });
    }
    if !header.starts_with(b"PROXY ") {
        return Err(malformed("no PROXY header"));
    }
    while !header.ends_with(b"\r\n") {
        if header.len() == LINE {
            return Err(malformed("too long"));
        }
        more(stream, &mut header, 1).await?;
    }
    let parsed = v1::Header::try_from(header.as_slice()).map_err(malformed)?;
    Ok(match parsed.addresses {
        v1::Addresses::Tcp4(a) => Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into())),
        v1::Addresses::Tcp6(a) => Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into())),
        v1::Addresses::Unknown => None,
    })
}

async fn more(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>, n: usize) -> io::Result<()> {
    let before = header.len();
    header.resize(before + n, 0);
    stream.read_exact(&mut header[before..]).await.map(drop)
}

fn malformed(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed PROXY header: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), String> {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(read(&mut rest)).map_err(|e| e.to_string())?;
        Ok((read.map(|(client, _)| client), rest.len()))
    }

    #[test]
    fn version_1() {
        let read = read_all(b"PROXY TCP4 1.2.3.4 10.0.0.1 56324 443\r\nGET /").unwrap();
        assert_eq!(read, (Some("1.2.3.4:56324".parse().unwrap()), 5));
        let read = read_all(b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n").unwrap();
        assert_eq!(read, (Some("[2001:db8::1]:56324".parse().unwrap()), 0));
        assert_eq!(read_all(b"PROXY UNKNOWN\r\n\r\n").unwrap(), (None, 2));
    }

    #[test]
    fn version_2() {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x21, 0x11, 0, 12, 1, 2, 3, 4, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb]);
        let read = read_all(&[header.as_slice(), b"GET"].concat()).unwrap();
        assert_eq!(read, (Some("1.2.3.4:56324".parse().unwrap()), 3));
        header[12] = 0x20;
        assert_eq!(read_all(&header).unwrap(), (None, 0), "a connection of the balancer itself");
    }

    #[test]
    fn anything_else_is_refused() {
        let too_long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let mut large = v2::PROTOCOL_PREFIX.to_vec();
        large.extend([0x21, 0x11, 0xff, 0xff]);
        for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"PROXY TCP4 1.2.3.4 x 1 2\r\n", b"PROXY TCP4 1.2", &too_long, &large] {
            assert!(read_all(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
