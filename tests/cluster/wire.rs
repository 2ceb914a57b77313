//! A wire between nodes that can be cut: a listener in front of a node that passes bytes on, or nothing. Nodes dial from the address
//! that they listen on, so that it can tell them apart.

use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{Cloud, join, node_with, status, text, troop};
use crate::support::wait_for;

#[derive(Default)]
struct State {
    /// Who is not let through.
    refused: Vec<IpAddr>,
    /// Both ends, and who has dialed.
    connections: Vec<(IpAddr, [TcpStream; 2])>,
}

/// The wire to one node.
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Wire {
    pub fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            while let Ok((outside, from)) = listener.accept() {
                let mut state = shared.lock().expect("a lock");
                if state.refused.contains(&from.ip()) {
                    continue;
                }
                let Ok(inside) = TcpStream::connect(node) else { continue };
                for (from, to) in [(&outside, &inside), (&inside, &outside)] {
                    let (mut from, mut to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                state.connections.push((from.ip(), [outside, inside]));
            }
        });
        Self { address, state }
    }

    /// Ends the connections of one that dials and lets no new ones through.
    fn refuse(&self, who: IpAddr) {
        let mut state = self.state.lock().expect("a lock");
        state.refused.push(who);
        for (_, ends) in state.connections.extract_if(.., |(from, _)| *from == who) {
            ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
    }

    fn mend(&self) {
        self.state.lock().expect("a lock").refused.clear();
    }
}

/// Nodes that speak over wires.
pub struct Wired {
    pub cloud: Cloud,
    wires: Vec<Wire>,
}

impl Wired {
    pub fn start(nodes: u8) -> Self {
        let mut wired =
            Self { cloud: Cloud { directory: tempfile::tempdir().expect("a directory"), listens: vec![], nodes: vec![] }, wires: vec![] };
        let cloud = &mut wired.cloud;
        let folder = |cloud: &Cloud, number: u8| cloud.directory.path().join(number.to_string());
        troop(&["init", "--dir", text(&folder(cloud, 0))]);
        for number in 0..nodes {
            let held = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2 + number), 0)).expect("a free port");
            let listen = held.local_addr().expect("a bound socket has an address");
            drop(held);
            let wire = Wire::to(listen);
            let seeds = wired.wires.first().map(|seed| seed.address.to_string()).unwrap_or_default();
            if number > 0 {
                join(&folder(cloud, 0), &seeds, &folder(cloud, number));
            }
            let advertise = wire.address.to_string();
            let name = format!("node-{number}");
            let node = node_with(&folder(cloud, number), listen, &seeds, &name, &[("cluster_advertise", &advertise)]);
            cloud.listens.push(listen);
            cloud.nodes.push(node);
            wired.wires.push(wire);
        }
        cloud.meet();
        wired
    }

    /// Lets nothing through between a node and the others.
    pub fn cut(&self, alone: usize) {
        for (number, wire) in self.wires.iter().enumerate() {
            let others = self.cloud.listens.iter().enumerate().filter(|(other, _)| (*other == alone) != (number == alone));
            others.for_each(|(_, listen)| wire.refuse(listen.ip()));
        }
    }

    /// Waits until both sides know of it.
    pub fn until_missed(&self, alone: usize) {
        let nodes = self.cloud.nodes.len();
        for (number, node) in self.cloud.nodes.iter().enumerate() {
            let side = if number == alone { 1 } else { nodes - 1 };
            wait_for("the other side is missed", || {
                let status = status(node);
                status["nodes"].as_array().is_some_and(|all| all.iter().filter(|one| one["alive"] == true).count() == side)
            });
        }
    }

    pub fn mend(&self) {
        self.wires.iter().for_each(Wire::mend);
        self.cloud.meet();
    }
}
