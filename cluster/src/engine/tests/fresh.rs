//! What a node fetches from a peer while it commits what it has.

use super::*;
use crate::engine::batch::MAX_RECORDS;

/// A peer with so many records.
fn peer(records: usize, size: usize) -> Replica {
    let record = |n: usize| {
        let version = Version { life: 1, stamp: crate::clock::Stamp::new(1_790_000_000_000, 0, PEER) };
        let body = Some(vec![b' '; size].into());
        Record::new(Key::new("t", n.to_string()), version, Version::NONE, version.stamp, vec![], vec![], body).expect("a record")
    };
    Replica::load((0..records).map(record), 0)
}

/// A node whose disk is slower than anything else.
struct Slow {
    engine: Engine,
    peer: Replica,
    /// What was asked of the disk and of the router, and is not done.
    open: VecDeque<Action>,
    /// What was asked of the peer last.
    question: Option<Message>,
    commits: Vec<Commit>,
    /// The most bytes that were fetched and not in effect.
    ahead: usize,
    fetched: usize,
    at: u64,
}

impl Slow {
    fn new(engine: Engine, peer: Replica) -> Self {
        let mut slow = Self { engine, peer, open: VecDeque::new(), question: None, commits: Vec::new(), ahead: 0, fetched: 0, at: 0 };
        slow.give(Event::Tick);
        slow.done_with_all();
        slow.commits.clear();
        slow
    }

    fn give(&mut self, event: Event) {
        self.at += 1;
        for action in self.engine.handle(event, now(self.at)) {
            match action {
                Action::Send { message, .. } if self.answer_to(&message).is_some() => self.question = Some(message),
                Action::Commit { commit, changes } => {
                    self.commits.push(changes.clone());
                    self.open.push_back(Action::Commit { commit, changes });
                }
                apply @ Action::Apply { .. } => self.open.push_back(apply),
                _ => (),
            }
        }
    }

    fn meet(&mut self) {
        self.give(Event::PeerUp(PEER));
        let state = State { ready: true, digest: self.peer.digest() };
        self.give(Event::PeerState { node: PEER, state });
        self.at += 10_000;
        self.give(Event::Tick);
    }

    fn answer_to(&self, question: &Message) -> Option<Message> {
        match question {
            Message::Push { seq, .. } => Some(Message::Ack { seq: *seq, refused: 0 }),
            question => repair::answer(&self.peer, true, question),
        }
    }

    /// Brings the answer to the last question; false when there was none.
    fn answer(&mut self) -> bool {
        let Some(question) = self.question.take() else { return false };
        let answer = self.answer_to(&question).expect("an answer");
        if let Message::Snapshot { records, .. } | Message::Records { records, .. } = &answer {
            self.fetched += records.iter().filter_map(|blob| blob.open().ok()).map(|record| record.size()).sum::<usize>();
        }
        self.give(Event::Message { from: PEER, message: answer });
        let held: usize = self.engine.replica().records().map(|record| record.size()).sum();
        self.ahead = self.ahead.max(self.fetched.saturating_sub(held));
        true
    }

    /// One thing that was waited for is done; false when there was none.
    fn done(&mut self) -> bool {
        match self.open.pop_front() {
            Some(Action::Commit { commit, .. }) => self.give(Event::Committed { commit }),
            Some(Action::Apply { commit, .. }) => self.give(Event::Applied { commit, rejected: vec![] }),
            _ => return false,
        }
        true
    }

    fn done_with_all(&mut self) {
        while self.done() {}
    }

    /// The disk does something only when nothing else can go on.
    fn run(&mut self) {
        while self.answer() || self.done() {}
    }
}

#[test]
fn a_fresh_node_takes_everything_with_few_commits() {
    let mut node = Slow::new(engine(|config| config.has_seeds = true), peer(30_000, 2));
    node.meet();
    node.run();
    assert_eq!(node.engine.replica().digest().root, node.peer.digest().root);
    assert!(node.engine.is_ready());
    let most = node.commits.iter().map(|commit| commit.put.len()).max();
    assert!(most.is_some_and(|most| most <= MAX_RECORDS), "{most:?}");
    // The first portion at once, the rest in batches as large as may be, and the end of the snapshot.
    assert!(node.commits.len() <= 30_000 / MAX_RECORDS + 5, "{}", node.commits.len());
    assert!(node.engine.status(now(node.at)).counters.sessions == 1);
}

#[test]
fn a_node_that_serves_fetches_less_ahead_than_one_that_does_not_yet() {
    const MIB: usize = 1024 * 1024;
    let mut ahead = [true, false].map(|has_seeds| {
        let mut node = Slow::new(engine(|config| config.has_seeds = has_seeds), peer(500, 100_000));
        node.meet();
        node.run();
        assert_eq!(node.engine.replica().digest().count - u64::from(!has_seeds), 500);
        node.ahead / MIB
    });
    // One answer more than the window; a fresh node takes larger ones.
    ahead.sort_unstable();
    assert!((4..6).contains(&ahead[0]) && (32..34).contains(&ahead[1]), "{ahead:?}");
}

#[test]
fn sessions_that_break_off_while_the_disk_hangs_do_not_fill_the_memory() {
    let mut node = Slow::new(engine(|config| config.has_seeds = true), peer(500, 100_000));
    for _ in 0..4 {
        node.meet();
        while node.answer() {}
        node.give(Event::PeerDown(PEER));
        node.question = None;
    }
    // The queue is full with what two sessions have fetched; a third one that had begun before may end what it began.
    assert!(node.ahead < 100 * 1024 * 1024, "{}", node.ahead);
    node.meet();
    node.run();
    node.meet();
    node.run();
    assert_eq!(node.engine.replica().digest().root, node.peer.digest().root);
}

#[test]
fn what_an_earlier_session_left_behind_does_not_move_the_next_one_on() {
    let mut node = Slow::new(engine(|config| config.has_seeds = true), peer(10, 2));
    node.meet();
    let first = node.question.clone().expect("a question");
    node.answer();
    assert_eq!(node.commits.len(), 1, "it is on its way to the disk");
    node.give(Event::PeerDown(PEER));
    node.meet();
    let late = repair::answer(&node.peer, true, &first).expect("an answer");
    let second = node.question.clone();
    assert_ne!(second.as_ref(), Some(&first), "each question has a number of its own");
    node.give(Event::Message { from: PEER, message: late });
    assert_eq!(node.engine.queue.len(), 0, "an answer to the first session is late");
    assert!(node.answer());
    assert_eq!(node.engine.queue.len(), 1);
    // The commit of the first session ends; the second has its own end before it.
    node.done();
    node.done();
    assert!(!node.engine.is_ready());
    node.done_with_all();
    assert!(node.engine.is_ready());
    assert_eq!(node.engine.replica().digest().root, node.peer.digest().root);
}

#[test]
fn each_record_of_a_large_batch_is_a_suspect_until_it_has_proven_harmless() {
    let mut node = Slow::new(engine(|config| config.has_seeds = true), peer(MAX_RECORDS, 2));
    node.meet();
    node.run();
    let last = node.commits.last().expect("a commit");
    let suspects: BTreeSet<&Key> = last.meta.suspects.iter().map(|suspect| &suspect.key).collect();
    assert!(node.peer.records().all(|record| suspects.contains(&record.key)), "{}", suspects.len());
}
