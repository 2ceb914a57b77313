//! A relay in front of a node: it tells who dials by the address that they dial from, and can be told to let nobody through.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

struct State {
    target: SocketAddr,
    refused: HashSet<IpAddr>,
    connections: Vec<(IpAddr, tokio::task::AbortHandle)>,
}

pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _task: JoinSet<()>,
}

impl Relay {
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(listen).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { target, refused: HashSet::new(), connections: Vec::new() }));
        let mut task = JoinSet::new();
        task.spawn(run(listener, state.clone()));
        Self { address, state, _task: task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn lead_to(&self, target: SocketAddr) {
        self.state.lock().expect("a lock").target = target;
    }

    pub fn refuse(&self, who: IpAddr) {
        let mut state = self.state.lock().expect("a lock");
        state.refused.insert(who);
        state.connections.retain(|(from, connection)| {
            if *from == who {
                connection.abort();
            }
            *from != who
        });
    }

    pub fn heal(&self) {
        self.state.lock().expect("a lock").refused.clear();
    }
}

async fn run(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut inside, from)) = listener.accept().await {
        let mut locked = state.lock().expect("a lock");
        if locked.refused.contains(&from.ip()) {
            continue;
        }
        let target = locked.target;
        let connection = connections.spawn(async move {
            if let Ok(mut outside) = TcpStream::connect(target).await {
                let _ = outside.set_nodelay(true);
                let _ = inside.set_nodelay(true);
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            }
        });
        locked.connections.push((from.ip(), connection));
    }
}
