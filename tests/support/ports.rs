//! Ports of 127.0.0.1 for servers that a test starts by itself: free ones, that no other test gets.
//!
//! Each process takes blocks of ports for as long as it lives, by a lock on a file that all test processes of the machine share.
//! The kernel gives none of them to sockets that ask for any port, since they are outside of its own range. A server can so be
//! stopped and started again at its port.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// Above the usual ports of servers.
const FIRST: u16 = 10_000;
const BLOCK: u16 = 32;

/// What this process has taken: the ports of its last block that are left, and the locks of all.
static TAKEN: Mutex<Taken> = Mutex::new(Taken { left: Vec::new(), locks: Vec::new() });

struct Taken {
    left: Vec<u16>,
    locks: Vec<File>,
}

impl Taken {
    fn next(&mut self) -> SocketAddr {
        loop {
            let Some(port) = self.left.pop() else {
                self.take_block();
                continue;
            };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            // who is no test may listen there
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    }

    fn take_block(&mut self) {
        let folder = std::env::temp_dir().join("troop-test-ports");
        std::fs::create_dir_all(&folder).expect("a folder for locks");
        let mut blocks = blocks(&ephemeral());
        // elsewhere than the process before: what it has left behind may still knock at its ports
        let start = std::process::id() as usize % blocks.len().max(1);
        blocks.rotate_left(start);
        for block in blocks {
            let lock = File::options().create(true).append(true).open(folder.join(block.to_string())).expect("a lock's file");
            match lock.try_lock() {
                Ok(()) => {
                    self.left = (block..block + BLOCK).rev().collect();
                    return self.locks.push(lock);
                }
                Err(TryLockError::WouldBlock) => (),
                Err(TryLockError::Error(error)) => panic!("ports cannot be locked: {error}"),
            }
        }
        panic!("all ports are taken by other tests");
    }
}

/// The ports that the kernel gives to sockets that ask for any.
fn ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux");
    let bounds: Vec<u16> = text.split_whitespace().map(|bound| bound.parse().expect("a port")).collect();
    bounds[0]..=bounds[1]
}

/// The first ports of all blocks outside of that range.
fn blocks(ephemeral: &RangeInclusive<u16>) -> Vec<u16> {
    let free = |block: &u16| block + (BLOCK - 1) < *ephemeral.start() || block > ephemeral.end();
    (FIRST..=u16::MAX - BLOCK).step_by(BLOCK.into()).filter(free).collect()
}

/// Ports that are this process's alone.
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    std::array::from_fn(|_| taken.next())
}

#[test]
fn blocks_keep_out_of_the_kernels_range() {
    let blocks = blocks(&(32_768..=60_999));
    assert!(blocks.len() > 500);
    assert!(blocks.iter().all(|block| block + (BLOCK - 1) < 32_768 || *block > 60_999));
}

#[test]
fn a_block_that_is_taken_is_nobody_elses() {
    let mut these = Taken { left: Vec::new(), locks: Vec::new() };
    let mut those = Taken { left: Vec::new(), locks: Vec::new() };
    let all: std::collections::BTreeSet<_> = (0..2 * BLOCK).flat_map(|_| [these.next(), those.next()]).collect();
    assert_eq!(all.len(), 4 * usize::from(BLOCK), "no port is given twice");
    assert!(all.iter().all(|address| !ephemeral().contains(&address.port())));
}
