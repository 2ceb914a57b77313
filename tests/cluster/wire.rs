//! A wire between nodes that can be cut: a listener in front of a node that passes bytes on, or nothing.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    cut: bool,
    connections: Vec<TcpStream>,
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
            for outside in listener.incoming().flatten() {
                let mut state = shared.lock().expect("a lock");
                if state.cut {
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
                state.connections.extend([outside, inside]);
            }
        });
        Self { address, state }
    }

    /// Ends all connections and lets no new ones through.
    pub fn cut(&self) {
        let mut state = self.state.lock().expect("a lock");
        state.cut = true;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.state.lock().expect("a lock").cut = false;
    }
}
