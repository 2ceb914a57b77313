//! Messages of the gossip as a peer sends them. chitchat unfolds what is compressed in them without a bound, so that is looked at
//! before.

use anyhow::ensure;
use chitchat::{ChitchatMessage, Deserializable};

/// The most blocks of a message, each of which unfolds to at most 64 KiB. chitchat's own hold 16 KiB each, and there are few of
/// them, since each node tells little.
const MAX_BLOCKS: usize = 32;
/// Magic number and version.
const HEAD: usize = 3;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;
/// Of a node in a digest, behind its name: generation, address, and three numbers.
const V4: u8 = 4;
const NUMBERS: usize = 24;

/// Reads a message.
pub fn decode(bytes: &[u8]) -> anyhow::Result<ChitchatMessage> {
    ensure!(blocks(bytes) <= MAX_BLOCKS, "more blocks than are allowed");
    ChitchatMessage::deserialize(&mut &bytes[..])
}

/// How many blocks would be unfolded, as far as the message can be read.
fn blocks(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut blocks = 0;
    let Some(()) = to_blocks(&mut rest) else { return 0 };
    while let Some(1..) = byte(&mut rest) {
        blocks += 1;
        if length(&mut rest).and_then(|length| skip(&mut rest, length)).is_none() {
            break;
        }
    }
    blocks
}

/// Goes to where the first block begins; nothing in a message that has none.
fn to_blocks(rest: &mut &[u8]) -> Option<()> {
    skip(rest, HEAD)?;
    match byte(rest)? {
        SYN_ACK => {
            for _ in 0..length(rest)? {
                let name = length(rest)?;
                skip(rest, name + 8)?;
                let address = if byte(rest)? == V4 { 4 } else { 16 };
                skip(rest, address + 2 + NUMBERS)?;
            }
            Some(())
        }
        ACK => Some(()),
        _ => None,
    }
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u16::from_le_bytes(*first).into())
}
