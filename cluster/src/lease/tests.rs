use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::*;

/// The time when a world begins, in milliseconds.
const BEGIN: u64 = 100_000;

fn window(limit: u64) -> Window {
    Window { name: Name(u128::from(limit) * 0x9e37_79b9_7f4a_7c15), limit, since: 0, until: BEGIN + 1_000_000 }
}

/// Nodes, and the messages between them in the order of their arrival.
struct World {
    nodes: Vec<Option<Leases>>,
    future: Vec<(u64, NodeId, NodeId, Message)>,
    now: u64,
    rng: SmallRng,
    allowed: u64,
    refused: u64,
    waiting: HashSet<u64>,
    tickets: u64,
    waited: u64,
    starts: u64,
}

fn id(number: usize) -> NodeId {
    NodeId(number as u128 + 1)
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(id).collect()
}

impl World {
    /// Nodes that have known each other for long before windows begin.
    fn new(nodes: usize, seed: u64) -> Self {
        let mut world = Self {
            nodes: (0..nodes).map(|_| None).collect(),
            future: vec![],
            now: 0,
            rng: SmallRng::seed_from_u64(seed),
            allowed: 0,
            refused: 0,
            waiting: HashSet::new(),
            tickets: 0,
            waited: 0,
            starts: 0,
        };
        for number in 0..nodes {
            world.start(number);
        }
        world.now = BEGIN;
        world.see(0..nodes, 0..nodes);
        world
    }

    /// A node that knows nothing of earlier lives, but that it has been a member for long.
    fn start(&mut self, number: usize) {
        self.starts += 1 << 40;
        let mut leases = Leases::new(id(number), self.starts, self.now);
        leases.joined(0);
        self.nodes[number] = Some(leases);
    }

    /// A node dies, and what it had sent in the last moment does not arrive.
    fn kill(&mut self, number: usize) {
        self.nodes[number] = None;
        self.future.retain(|(_, from, ..)| *from != id(number));
    }

    /// A node ends in good order.
    fn leave(&mut self, number: usize) {
        let actions = self.nodes[number].as_mut().expect("a node").leave(self.now);
        self.act(number, actions);
        while !self.nodes[number].as_ref().expect("a node").has_left() {
            self.pass();
        }
        self.kill(number);
    }

    /// These nodes see one another and no others.
    fn see(&mut self, live: impl IntoIterator<Item = usize>, members: impl IntoIterator<Item = usize>) {
        let (live, members) = (ids(live), ids(members));
        let now = self.now;
        for node in &live {
            let number = node.0 as usize - 1;
            if let Some(leases) = &mut self.nodes[number] {
                let actions = leases.members(live.clone(), members.clone(), now);
                self.act(number, actions);
            }
        }
    }

    fn owner(&self, window: &Window) -> usize {
        order(window.name, &ids(0..self.nodes.len())).0.expect("an owner").0 as usize - 1
    }

    fn act(&mut self, from: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                // In order between two nodes, as on a connection: a millisecond each way, or a few.
                Action::Send { to, message } => {
                    let at = self.now + self.rng.random_range(1..4);
                    let behind = self.future.iter().filter(|(_, a, b, _)| (*a, *b) == (id(from), to)).map(|(at, ..)| *at).max();
                    self.future.push((at.max(behind.unwrap_or(0)), id(from), to, message));
                }
                Action::Decide { ticket, allowed, .. } => {
                    if self.waiting.remove(&ticket) {
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
        let (decision, actions) = leases.spend(ticket, window, 1, false, now);
        match decision {
            Decision::Allowed => self.count(true),
            Decision::Refused => self.count(false),
            Decision::Wait => {
                self.waited += 1;
                self.waiting.insert(ticket);
            }
            Decision::Unanswered | Decision::Full => panic!("there are few windows and few requests"),
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

    /// Requests at random nodes for as long as anything is allowed.
    fn exhaust(&mut self, window: &Window) {
        loop {
            // Longer than anybody holds it for certain that nothing is left.
            for _ in 0..USED_UP + 200 {
                self.pass();
            }
            let before = self.allowed;
            for _ in 0..20 {
                let node = self.rng.random_range(0..self.nodes.len());
                self.request(node, window);
            }
            for _ in 0..200 {
                self.pass();
            }
            if self.allowed == before {
                return;
            }
        }
    }
}

#[test]
fn without_faults_exactly_the_limit_is_allowed_whoever_asks() {
    for nodes in [1, 2, 3, 10] {
        for limit in [1, 5, 10, 59, 60, 100, 1_000, 10_000] {
            for pattern in 0..4 {
                for fresh in [false, true] {
                    let mut world = World::new(nodes, limit + pattern);
                    let since = if fresh { BEGIN + GRACE } else { 0 };
                    let window = Window { since, ..window(limit) };
                    world.now = BEGIN + GRACE + 5;
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
}

#[test]
fn a_burst_in_one_moment_overshoots_nothing() {
    for nodes in [3, 10] {
        for limit in [10, 100, 1_000, 10_000] {
            for on in [1, nodes] {
                let mut world = World::new(nodes, 1);
                for n in 0..limit * 10 {
                    world.request(n as usize % on, &window(limit));
                    // A node has at most so many requests under way.
                    if world.waiting.len() > 5_000 {
                        world.pass();
                    }
                }
                world.end();
                assert_eq!(world.allowed, limit, "{limit} on {on} of {nodes}");
            }
        }
    }
}

#[test]
fn of_a_large_limit_few_requests_wait() {
    for (limit, most) in [(1_000, 30), (10_000, 30)] {
        let mut world = World::new(3, 1);
        let window = window(limit);
        for n in 0..limit as usize * 9 / 10 {
            world.request(n % 3, &window);
            if n % 2 == 0 {
                world.pass();
            }
        }
        world.end();
        assert_eq!(world.allowed, limit * 9 / 10);
        assert!(world.waited < most, "{} of {limit} waited", world.waited);
    }
}

/// The owner of a window dies in the middle of it, with all that it has just sent.
#[test]
fn the_death_of_an_owner_overshoots_nothing_and_its_windows_go_on() {
    for nodes in [3, 10] {
        for limit in [10, 100, 300, 1_000] {
            for seed in 0..25 {
                let mut world = World::new(nodes, seed);
                let window = window(limit);
                let owner = world.owner(&window);
                let dies_at = world.rng.random_range(0..limit * 2 / 3);
                // Nearly all through the owner, or at random.
                let through = |world: &mut World| if seed % 2 == 0 { owner } else { world.rng.random_range(0..nodes) };
                for n in 0..limit * 3 {
                    if n == dies_at {
                        world.kill(owner);
                        let rest: Vec<usize> = (0..nodes).filter(|number| *number != owner).collect();
                        // The others see it a little later.
                        for _ in 0..world.rng.random_range(0..20) {
                            let node = through(&mut world);
                            world.request(node, &window);
                            world.pass();
                        }
                        world.see(rest, 0..nodes);
                    }
                    let node = if n < dies_at { through(&mut world) } else { world.rng.random_range(0..nodes) };
                    world.request(node, &window);
                    if world.rng.random_range(0..3) == 0 {
                        world.pass();
                    }
                }
                world.end();
                assert!(world.allowed <= limit, "{nodes} nodes, limit {limit}, seed {seed}: {}", world.allowed);
                // Once it is forgotten the others may use what it has not taken with it: what it had, and answers under way.
                let rest: Vec<usize> = (0..nodes).filter(|number| *number != owner).collect();
                world.see(rest.clone(), rest);
                world.exhaust(&window);
                let taken = limit / 5 + 3;
                assert!(world.allowed <= limit, "{nodes} nodes, limit {limit}, seed {seed}: {}", world.allowed);
                assert!(world.allowed + taken >= limit, "{nodes} nodes, limit {limit}, seed {seed}: {}", world.allowed);
            }
        }
    }
}

/// A node dies, starts with nothing, is alone for a while, and is seen again.
#[test]
fn a_node_that_starts_again_has_at_most_its_part_once_more_and_nothing_when_it_sees_others_at_once() {
    for (limit, seed, alone) in [10, 100, 1_000].iter().flat_map(|limit| (0..60).map(|seed| (*limit, seed / 2, seed % 2 == 0))) {
        {
            let mut world = World::new(3, seed);
            let window = window(limit);
            let node = if seed % 2 == 0 { world.owner(&window) } else { 2 };
            let rest: Vec<usize> = (0..3).filter(|number| *number != node).collect();
            for n in 0..limit * 4 {
                if n == limit / 2 {
                    world.kill(node);
                    world.see(rest.clone(), 0..3);
                } else if n == limit {
                    world.start(node);
                    world.see([node], 0..3);
                    for _ in 0..if alone { ALONE + 10 } else { 0 } {
                        world.request(node, &window);
                        world.pass();
                    }
                } else if n == limit + 10 {
                    world.see(0..3, 0..3);
                }
                let at = world.rng.random_range(0..3);
                world.request(at, &window);
                world.pass();
            }
            world.exhaust(&window);
            let more = if alone { limit / 3 } else { 0 };
            assert!(world.allowed <= limit + more, "limit {limit}, seed {seed}: {}", world.allowed);
            assert!(world.allowed >= limit * 3 / 4, "limit {limit}, seed {seed}: {}", world.allowed);
        }
    }
}

#[test]
fn a_node_that_ends_in_good_order_hands_back_what_it_has_not_spent() {
    for limit in [10, 59, 100, 1_000] {
        for seed in 0..30 {
            let mut world = World::new(3, seed);
            let window = window(limit);
            let owner = world.owner(&window);
            let node = if seed % 2 == 0 { owner } else { (owner + 1) % 3 };
            let rest: Vec<usize> = (0..3).filter(|number| *number != node).collect();
            // All at it: it holds more than it spends, and some answers are under way.
            for _ in 0..limit / 2 {
                world.request(node, &window);
                if world.rng.random_range(0..3) == 0 {
                    world.pass();
                }
            }
            world.leave(node);
            // What waited there is answered by nobody.
            world.waiting.clear();
            if seed % 3 == 0 {
                world.see(rest.clone(), 0..3);
                world.start(node);
                world.see(0..3, 0..3);
            } else {
                world.see(rest.clone(), rest.clone());
            }
            world.exhaust(&window);
            assert_eq!(world.allowed, limit, "seed {seed}");
        }
    }
}

#[test]
fn a_node_that_ends_gives_and_spends_no_more() {
    let mut world = World::new(2, 1);
    let window = window(100);
    let owner = world.owner(&window);
    world.request(owner, &window);
    let now = world.now;
    let leases = world.nodes[owner].as_mut().expect("a node");
    assert!(!leases.has_left());
    assert!(!leases.leave(now).is_empty() && !leases.has_left());
    assert_eq!(leases.spend(1, &window, 1, false, now), (Decision::Unanswered, vec![]));
    let ask = Message::Ask { number: 1, window, need: 1, had: Given::default() };
    assert_eq!(leases.received(id(1 - owner), ask, now), []);
    // A portion that comes late goes back as well.
    let number = leases.numbers + 1;
    let had = Given { given: 12, returned: 1 };
    let late = leases.received(id(1 - owner), Message::Grant { number, name: window.name, amount: 10, left: 0, had }, now);
    let [Action::Send { message: Message::Farewell { number, books }, .. }] = &late[..] else { panic!("{late:?}") };
    let (_, had) = books[0].1.iter().find(|(node, _)| *node == id(owner)).expect("itself");
    assert_eq!(had.given - had.returned, 1);
    assert!(*number > 0 && leases.grant(&window, now).expect("a grant").left() <= 100);
}

/// Every node is new: the window is older than all of them. None has had anything.
#[test]
fn nodes_that_are_younger_than_a_window_allow_all_of_it() {
    for limit in [10, 100, 1_000] {
        let mut world = World::new(3, limit);
        let window = Window { since: BEGIN + 5, ..window(limit) };
        world.now = BEGIN + 10;
        for number in 0..3 {
            world.start(number);
        }
        world.see(0..3, 0..3);
        // Members of a cluster that is younger than the window, or older than it: then an earlier life may have spent its part.
        let older = limit == 100;
        for node in world.nodes.iter_mut().flatten() {
            node.joined(if older { BEGIN } else { BEGIN + 8 });
        }
        world.exhaust(&window);
        let parts = if older { 3 * share(limit, 3) } else { 0 };
        assert_eq!(world.allowed, limit - parts);
    }
}

/// What a node was told of after its answer counts on top of what it had in an earlier life, and so does what it gives back.
#[test]
fn a_restarted_node_counts_on_from_what_it_had() {
    for limit in [10, 300] {
        let mut world = World::new(3, 7);
        let window = window(limit);
        let node = (world.owner(&window) + 1) % 3;
        let charge = |world: &mut World, cost: i64| {
            let now = world.now;
            let actions = world.nodes[node].as_mut().expect("a node").charge(&window, cost, now);
            world.act(node, actions);
            world.end();
        };
        charge(&mut world, 6);
        world.kill(node);
        world.start(node);
        world.see(0..3, 0..3);
        charge(&mut world, 3);
        charge(&mut world, -2);
        world.exhaust(&window);
        // Of what it held when it was killed it may have spent everything.
        let lost = share(limit, 3).saturating_sub(6);
        assert_eq!(world.allowed, limit - 7 - lost);
    }
}

#[test]
fn a_new_node_becomes_the_owner_without_giving_anything_twice() {
    for limit in [10, 100, 1_000] {
        for seed in 0..30 {
            let mut world = World::new(4, seed);
            let window = window(limit);
            let new = world.owner(&window);
            let old: Vec<usize> = (0..4).filter(|number| *number != new).collect();
            world.nodes[new] = None;
            world.see(old.clone(), old.clone());
            for n in 0..limit * 3 {
                if n == limit / 2 {
                    world.start(new);
                    // It sees the others before they see it.
                    let actions = world.nodes[new].as_mut().expect("a node").members(ids(0..4), ids(0..4), world.now);
                    world.act(new, actions);
                } else if n == limit / 2 + 5 {
                    world.see(0..4, 0..4);
                }
                let at = world.rng.random_range(0..4);
                world.request(at, &window);
                world.pass();
            }
            world.exhaust(&window);
            // An answer of the old owner that comes after one of the new is lost.
            assert!(world.allowed <= limit, "limit {limit}, seed {seed}: {}", world.allowed);
            assert!(world.allowed + limit / 20 + 1 >= limit, "limit {limit}, seed {seed}: {}", world.allowed);
        }
    }
}

#[test]
fn the_sides_of_a_partition_share_the_limit() {
    let mut world = World::new(3, 1);
    let window = window(300);
    world.see([0], 0..3);
    world.see([1, 2], 0..3);
    for n in 0..1_200 {
        world.request(n % 3, &window);
        // Nothing goes from one side to the other.
        world.future.retain(|(_, from, to, _)| (*from == id(0)) == (*to == id(0)));
        world.pass();
    }
    // Each side leaves alone what the nodes of the other may spend without asking.
    assert!((270..=300).contains(&world.allowed), "{}", world.allowed);
    // When it is over what is left is given, and no more.
    world.see(0..3, 0..3);
    world.exhaust(&window);
    assert_eq!(world.allowed, 300);
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
fn what_is_spent_without_asking_counts_and_can_be_given_back() {
    for limit in [10, 300] {
        let mut world = World::new(3, 7);
        let window = window(limit);
        let charge = |world: &mut World, node: usize, cost: i64| {
            let now = world.now;
            let actions = world.nodes[node].as_mut().expect("a node").charge(&window, cost, now);
            world.act(node, actions);
            for _ in 0..USED_UP + 10 {
                world.pass();
            }
        };
        charge(&mut world, 0, limit as i64 + 5);
        for node in 0..3 {
            world.request(node, &window);
            world.end();
        }
        assert_eq!(world.allowed, 0);
        let left = |world: &mut World, node: usize| {
            let now = world.now;
            world.nodes[node].as_mut().expect("a node").grant(&window, now).expect("a grant").left()
        };
        assert_eq!(left(&mut world, 1), -5);
        charge(&mut world, 1, -8);
        assert_eq!(left(&mut world, 1), 3);
        world.exhaust(&window);
        assert_eq!(world.allowed, 3);
    }
}

#[test]
fn what_is_only_made_sure_of_is_not_spent() {
    let mut world = World::new(3, 7);
    let window = window(10);
    for round in 0..6 {
        for node in 0..3 {
            let leases = world.nodes[node].as_mut().expect("a node");
            let (_, actions) = leases.spend(1_000 + round * 3 + node as u64, &window, 1, true, world.now);
            world.act(node, actions);
            world.end();
        }
    }
    world.exhaust(&window);
    assert_eq!(world.allowed, 10);
}

#[test]
fn a_limit_that_is_changed_keeps_what_was_counted() {
    for (first, second, allowed) in [(100, 300, 300), (300, 100, 120), (10, 20, 20)] {
        let mut world = World::new(3, 7);
        let (before, after) = (window(first), Window { limit: second, ..window(first) });
        for n in 0..first.min(120) {
            world.request(n as usize % 3, &before);
            world.pass();
        }
        world.end();
        world.exhaust(&after);
        assert_eq!(world.allowed, allowed, "{first} to {second}");
    }
}

#[test]
fn windows_that_are_over_are_forgotten() {
    let mut world = World::new(2, 1);
    let window = Window { until: BEGIN + 50, ..window(100) };
    world.request(0, &window);
    world.request(1, &window);
    for _ in 0..4 {
        world.end();
    }
    for node in world.nodes.iter().flatten() {
        assert_eq!(node.windows(), (0, 0));
        assert!(node.open.is_empty() && node.rounds.is_empty());
    }
}

/// Strangers begin more windows than a node keeps; those in use stay, and nothing grows.
#[test]
fn windows_are_bounded_and_those_in_use_stay() {
    let mut leases = Leases::new(id(0), 7, BEGIN);
    let mut allowed = 0;
    let mut now = BEGIN;
    let (mut tickets, mut full) = (0, 0);
    let mut spend = |leases: &mut Leases, window: &Window, now: u64| {
        tickets += 1;
        leases.spend(tickets, window, 1, false, now).0
    };
    for n in 0..MAX_WINDOWS * 3 {
        let stranger = Window { name: Name(1 << 100 | n as u128), limit: 5, since: 0, until: 1_000_000_000 };
        full += usize::from(spend(&mut leases, &stranger, now) == Decision::Full);
        if n % 1_000 == 0 {
            now += 20;
            allowed += usize::from(spend(&mut leases, &window(100), now) == Decision::Allowed);
        }
    }
    assert_eq!(allowed, 100);
    assert!(leases.held.len() <= MAX_WINDOWS && leases.ledgers.len() <= MAX_WINDOWS);
    assert!(full > 0 && full < MAX_WINDOWS * 2, "{full} were not decided");
}

#[test]
fn owner_and_successor_change_as_little_as_can_be() {
    let all = ids(0..5);
    for n in 0..200 {
        let (owner, successor) = order(Name(n), &all);
        let mut rest = all.clone();
        rest.remove(&owner.expect("an owner"));
        assert_eq!(order(Name(n), &rest).0, successor);
    }
}

#[test]
fn books_that_are_told_together_fit_in_a_message() {
    let most = Given { given: u64::MAX, returned: u64::MAX };
    let window = Window { name: Name(u128::MAX), limit: u64::MAX, since: u64::MAX, until: u64::MAX };
    let mut ledger = Ledger::new(window);
    for node in 0..u128::from(u16::MAX) {
        ledger.learn(NodeId(u128::MAX - node), most);
    }
    let books = vec![(window, ledger.rows()); TELL];
    for message in [Message::Totals(books.clone()), Message::Farewell { number: u64::MAX, books }] {
        let bytes = crate::wire::Message::Lease(message).encode().len();
        assert!(bytes < crate::wire::MAX_MESSAGE, "{bytes}");
    }
}
