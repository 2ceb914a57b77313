use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::*;

fn window(limit: u64) -> Window {
    Window { name: format!("plugin/consumer/{limit}").into(), limit, until: 1_000_000 }
}

/// Nodes, and the messages between them in the order of their arrival.
struct World {
    nodes: Vec<Option<Leases>>,
    future: Vec<(u64, NodeId, NodeId, Message)>,
    now: u64,
    rng: SmallRng,
    allowed: u64,
    refused: u64,
    waiting: HashMap<u64, ()>,
    tickets: u64,
    waited: u64,
}

fn id(number: usize) -> NodeId {
    NodeId(number as u128 + 1)
}

impl World {
    fn new(nodes: usize, seed: u64) -> Self {
        let live: BTreeSet<NodeId> = (0..nodes).map(id).collect();
        let mut all: Vec<Option<Leases>> = (0..nodes).map(|number| Some(Leases::new(id(number)))).collect();
        for node in all.iter_mut().flatten() {
            node.members(live.clone(), nodes);
        }
        let rng = SmallRng::seed_from_u64(seed);
        Self { nodes: all, future: vec![], now: 0, rng, allowed: 0, refused: 0, waiting: HashMap::new(), tickets: 0, waited: 0 }
    }

    fn act(&mut self, from: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, message } => {
                    // In order between two nodes, as on a connection: one millisecond each way.
                    self.future.push((self.now + 1, id(from), to, message));
                }
                Action::Decide { ticket, allowed } => {
                    if self.waiting.remove(&ticket).is_some() {
                        self.count(allowed);
                    }
                }
            }
        }
    }

    fn count(&mut self, allowed: bool) {
        if allowed {
            self.allowed += 1;
        } else {
            self.refused += 1;
        }
    }

    fn request(&mut self, node: usize, window: &Window) {
        self.tickets += 1;
        let (ticket, now) = (self.tickets, self.now);
        let Some(leases) = &mut self.nodes[node] else { return };
        let (decision, actions) = leases.spend(ticket, window, 1, now);
        match decision {
            Decision::Allowed => self.count(true),
            Decision::Refused => self.count(false),
            Decision::Wait => {
                self.waited += 1;
                self.waiting.insert(ticket, ());
            }
            Decision::Unavailable => panic!("there are few windows"),
        }
        self.act(node, actions);
    }

    /// A millisecond passes.
    fn pass(&mut self) {
        self.now += 1;
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.future).into_iter().partition(|(at, ..)| *at <= now);
        self.future = later;
        for (_, from, to, message) in due {
            let number = to.0 as usize - 1;
            if let Some(leases) = &mut self.nodes[number] {
                let actions = leases.received(from, message, now);
                self.act(number, actions);
            }
        }
        for number in 0..self.nodes.len() {
            if let Some(leases) = &mut self.nodes[number] {
                let actions = leases.tick(now);
                self.act(number, actions);
            }
        }
    }

    fn end(&mut self) {
        for _ in 0..2_000 {
            self.pass();
        }
    }

    fn live(&mut self, numbers: &[usize], members: usize) {
        let live: BTreeSet<NodeId> = numbers.iter().copied().map(id).collect();
        for number in numbers {
            if let Some(leases) = &mut self.nodes[*number] {
                let actions = leases.members(live.clone(), members);
                self.act(*number, actions);
            }
        }
    }
}

#[test]
fn without_faults_exactly_the_limit_is_allowed_whoever_asks() {
    for nodes in [1, 2, 3, 10] {
        for limit in [1, 5, 10, 59, 60, 100, 1_000, 10_000] {
            for pattern in 0..4 {
                let mut world = World::new(nodes, limit + pattern);
                let window = window(limit);
                for n in 0..limit * 2 + 20 {
                    let node = match pattern {
                        // All at one node, in turn, at random, mostly at one.
                        0 => 0,
                        1 => n as usize % nodes,
                        2 => world.rng.random_range(0..nodes),
                        _ => usize::from(n % 10 == 0) % nodes,
                    };
                    world.request(node, &window);
                    if world.rng.random_range(0..10) == 0 {
                        world.pass();
                    }
                }
                world.end();
                assert_eq!(world.allowed, limit, "{nodes} nodes, pattern {pattern}");
                assert_eq!(world.allowed + world.refused, limit * 2 + 20);
            }
        }
    }
}

#[test]
fn a_burst_on_all_nodes_in_one_moment_overshoots_nothing() {
    for limit in [10, 100, 1_000, 10_000] {
        let mut world = World::new(10, 1);
        for n in 0..limit * 10 {
            world.request(n as usize % 10, &window(limit));
        }
        world.end();
        assert_eq!(world.allowed, limit);
    }
}

#[test]
fn of_a_large_limit_few_requests_wait() {
    let mut world = World::new(3, 1);
    let window = window(10_000);
    for n in 0..9_000 {
        world.request(n % 3, &window);
        if n % 10 == 0 {
            world.pass();
        }
    }
    world.end();
    assert_eq!(world.allowed, 9_000);
    assert!(world.waited < 90, "{} of 9,000 waited", world.waited);
}

#[test]
fn an_owner_that_dies_takes_with_it_what_it_had_and_the_window_goes_on() {
    for seed in 0..50 {
        let mut world = World::new(3, seed);
        let window = window(300);
        let all: BTreeSet<NodeId> = (0..3).map(id).collect();
        let owner = order(&window.name, &all).0.expect("an owner").0 as usize - 1;
        let dies_at = world.rng.random_range(0..300);
        for n in 0..900 {
            if n == dies_at {
                world.nodes[owner] = None;
                let rest: Vec<usize> = (0..3).filter(|number| *number != owner).collect();
                world.live(&rest, 3);
            }
            let node = world.rng.random_range(0..3);
            world.request(node, &window);
            world.pass();
        }
        world.end();
        // Two of three nodes may give two thirds, and never more than is left.
        assert!(world.allowed <= 300, "seed {seed}: {}", world.allowed);
        assert!(world.allowed >= 150, "seed {seed}: {}", world.allowed);
    }
}

#[test]
fn the_sides_of_a_partition_share_the_limit() {
    let mut world = World::new(3, 1);
    let window = window(300);
    world.live(&[0], 3);
    world.live(&[1, 2], 3);
    for n in 0..1_200 {
        world.request(n % 3, &window);
        // Nothing goes from one side to the other.
        world.future.retain(|(_, from, to, _)| (*from == id(0)) == (*to == id(0)));
        world.pass();
    }
    world.end();
    // Each side leaves alone what the nodes of the other may spend without asking.
    assert!((270..=300).contains(&world.allowed), "{}", world.allowed);
}

#[test]
fn lost_and_repeated_messages_give_nothing_twice() {
    for seed in 0..50 {
        let mut world = World::new(3, seed);
        let window = window(200);
        for _ in 0..600 {
            let node = world.rng.random_range(0..3);
            world.request(node, &window);
            let mut future = std::mem::take(&mut world.future);
            future.retain(|_| world.rng.random_range(0..10) > 0);
            let again: Vec<_> = future.iter().filter(|_| world.rng.random_range(0..10) == 0).cloned().collect();
            future.extend(again);
            future.shuffle(&mut world.rng);
            world.future = future;
            world.pass();
        }
        world.end();
        assert!(world.allowed <= 200, "seed {seed}: {}", world.allowed);
        assert!(world.allowed >= 120, "seed {seed}: {}", world.allowed);
    }
}

#[test]
fn windows_that_are_over_are_forgotten() {
    let mut world = World::new(2, 1);
    let window = Window { until: 50, ..window(100) };
    world.request(0, &window);
    world.request(1, &window);
    world.end();
    for node in world.nodes.iter().flatten() {
        assert_eq!(node.windows(), (0, 0));
    }
}

#[test]
fn owner_and_successor_change_as_little_as_can_be() {
    let all: BTreeSet<NodeId> = (0..5).map(id).collect();
    for n in 0..200 {
        let name = format!("window {n}");
        let (owner, successor) = order(&name, &all);
        let mut rest = all.clone();
        rest.remove(&owner.expect("an owner"));
        assert_eq!(order(&name, &rest).0, successor);
    }
}
