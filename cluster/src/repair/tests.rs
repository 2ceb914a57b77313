use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::clock::Stamp;
use crate::record::Version;

const PEER: NodeId = NodeId(2);
const WINDOW: usize = 4 * 1024 * 1024;

fn record(n: u32, millis: u64, alive: bool, size: usize) -> Record {
    let version = Version { life: if alive { 1 } else { 2 }, stamp: Stamp::new(millis, 0, NodeId(1)) };
    let body = alive.then(|| vec![b'x'; size].into());
    Record::new(Key::new("t", format!("{n}")), version, Version::NONE, Stamp::at(1), vec![], vec![], body).expect("a record")
}

/// Runs a session to its end and counts the messages.
fn run(ours: &mut Replica, theirs: &mut Replica, (mut session, first): (Session, Step)) -> (Step, usize) {
    let mut open = VecDeque::from([first]);
    let mut messages = 0;
    while let Some(step) = open.pop_front() {
        match step {
            Step::Ask(question) => {
                messages += 1;
                let question = Message::decode(&question.encode()).expect("a question");
                let answer = answer(theirs, true, &question).expect("an answer");
                assert!(answer.encode().len() < crate::wire::MAX_MESSAGE);
                open.extend(session.answered(ours, answer.clone()));
                assert_eq!(session.answered(ours, answer), [], "it came twice");
            }
            Step::Commit(records) => {
                records.into_iter().for_each(|record| {
                    ours.apply(record);
                });
                open.extend(session.committed());
            }
            Step::Push(records) => {
                records.into_iter().for_each(|record| {
                    theirs.apply(record);
                });
                open.extend(session.pushed());
            }
            Step::Adopt(horizon) => {
                ours.raise_horizon(horizon);
                open.extend(session.committed());
            }
            Step::Drop { seen, horizon } => {
                ours.drop_unseen(&seen, horizon);
                ours.raise_horizon(horizon);
                open.extend(session.committed());
            }
            Step::Done | Step::GiveUp => return (step, messages),
        }
    }
    panic!("it does not go on")
}

fn random(rng: &mut SmallRng, keys: u32) -> Replica {
    let mut replica = Replica::default();
    for _ in 0..rng.random_range(0..keys) {
        replica.apply(record(rng.random_range(0..keys), rng.random_range(2..9), rng.random_range(0..4) > 0, 50));
    }
    replica
}

#[test]
fn one_session_makes_two_sets_equal() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut ours, mut theirs) = (random(&mut rng, 400), random(&mut rng, 400));
        let (end, _) = run(&mut ours, &mut theirs, Session::compare(1, PEER, 0, WINDOW));
        assert_eq!(end, Step::Done);
        assert_eq!(ours.digest(), theirs.digest(), "seed {seed}");
    }
}

#[test]
fn equal_sets_cost_one_question() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut ours = random(&mut rng, 400);
    let mut theirs = Replica::load(ours.records().cloned().collect::<Vec<_>>(), 0);
    let (_, messages) = run(&mut ours, &mut theirs, Session::compare(1, PEER, 0, WINDOW));
    assert_eq!(messages, 1);
}

#[test]
fn large_records_come_one_by_one() {
    let (mut ours, mut theirs) = (Replica::default(), Replica::default());
    for n in 0..5 {
        theirs.apply(record(n, 5, true, 3_000_000));
        ours.apply(record(n + 10, 5, true, 3_000_000));
    }
    run(&mut ours, &mut theirs, Session::compare(1, PEER, 0, WINDOW));
    assert_eq!(ours.digest(), theirs.digest());
    assert_eq!(ours.digest().count, 10);
}

#[test]
fn a_snapshot_fills_an_empty_node() {
    let (mut ours, mut theirs) = (Replica::default(), Replica::default());
    for n in 0..3_000 {
        theirs.apply(record(n, 5, n % 7 > 0, 500));
    }
    theirs.raise_horizon(4);
    let (end, messages) = run(&mut ours, &mut theirs, Session::snapshot(1, PEER, WINDOW));
    assert_eq!(end, Step::Done);
    assert_eq!(ours.digest(), theirs.digest());
    assert!(messages < 40, "{messages}: portions, not records");
}

#[test]
fn who_was_away_for_too_long_takes_a_snapshot_and_brings_nothing_old() {
    let (mut ours, mut theirs) = (Replica::default(), Replica::default());
    ours.apply(record(1, 5, true, 9));
    theirs.apply(record(2, 5, true, 9));
    theirs.apply(record(1, 6, false, 0));
    theirs.raise_horizon(100);
    run(&mut ours, &mut theirs, Session::compare(1, PEER, 50, WINDOW));
    assert_eq!(ours.digest(), theirs.digest());
    assert!(ours.get(&Key::new("t", "1")).is_none());
}

#[test]
fn who_was_complete_after_the_horizon_adopts_it() {
    let (mut ours, mut theirs) = (Replica::default(), Replica::default());
    for replica in [&mut ours, &mut theirs] {
        replica.apply(record(1, 5, false, 0));
        replica.apply(record(2, 5, true, 9));
    }
    ours.apply(record(3, 200, true, 9));
    theirs.raise_horizon(100);
    // Number 3 began before the horizon (its birth is 1) and is not there: the peer refuses it.
    run(&mut ours, &mut theirs, Session::compare(1, PEER, 150, WINDOW));
    assert_eq!(ours.digest().horizon, 100);
    assert!(ours.get(&Key::new("t", "3")).is_some() && theirs.get(&Key::new("t", "3")).is_none());
}

#[test]
fn whose_horizon_is_behind_has_to_come_first() {
    let (mut ours, mut theirs) = (Replica::default(), Replica::default());
    ours.raise_horizon(100);
    let (end, _) = run(&mut ours, &mut theirs, Session::compare(1, PEER, 0, WINDOW));
    assert_eq!(end, Step::GiveUp);
}

#[test]
fn answers_to_other_questions_and_of_other_phases_change_nothing() {
    let replica = Replica::default();
    let (mut session, first) = Session::compare(1, PEER, 0, WINDOW);
    let Step::Ask(Message::AskSums { session: number }) = first else { panic!("{first:?}") };
    let sums = |session, n| Message::Sums { session, digest: Digest::default(), ready: true, sums: vec![0; n] };
    assert_eq!(session.answered(&replica, sums(number + 1, BUCKETS)), []);
    assert_eq!(session.answered(&replica, sums(number, 5)), []);
    assert_eq!(session.answered(&replica, Message::Records { session: number, covered: 3, records: vec![] }), []);
    assert_eq!(session.committed(), None);
    assert_eq!(session.answered(&replica, sums(number, BUCKETS)), [Step::Done]);
    let (_, other) = Session::compare(2, PEER, 0, WINDOW);
    assert!(!matches!(other, Step::Ask(Message::AskSums { session }) if session == number), "each question has a number of its own");
}

#[test]
fn what_is_fetched_ahead_is_bounded_and_nothing_is_left_out() {
    let (mut ours, mut theirs) = (Replica::default(), Replica::default());
    for n in 0..400 {
        theirs.apply(record(n, 5, true, 100_000));
    }
    let window = 3 * PORTION;
    let (mut session, first) = Session::snapshot(1, PEER, window);
    let mut open = VecDeque::from([first]);
    let (mut waiting, mut most) = (VecDeque::new(), 0);
    loop {
        match open.pop_front() {
            Some(Step::Ask(question)) => open.extend(session.answered(&ours, answer(&theirs, true, &question).expect("an answer"))),
            Some(Step::Commit(records)) => {
                waiting.push_back(records);
                most = most.max(waiting.iter().flatten().map(|record| record.size()).sum());
            }
            Some(Step::Drop { .. }) => {
                assert!(waiting.is_empty(), "everything is in effect before");
                open.extend(session.committed());
            }
            Some(Step::Done) => break,
            Some(step) => panic!("{step:?}"),
            // The disk is slow: it has something only when nothing else can go on.
            None => {
                waiting.pop_front().expect("the session goes on").into_iter().for_each(|record| {
                    ours.apply(record);
                });
                open.extend(session.committed());
            }
        }
    }
    assert!((window..=window + PORTION).contains(&most), "{most}");
    assert_eq!(ours.digest(), theirs.digest());
}

#[test]
fn lists_of_long_keys_are_no_larger_than_a_message() {
    let mut replica = Replica::default();
    let version = Version { life: 1, stamp: Stamp::at(5) };
    let kind: std::sync::Arc<str> = "t".repeat(1_000).into();
    let long = (0..).map(|n| Key::new(kind.clone(), n.to_string())).filter(|key| bucket_of(key) < BUCKETS_AT_ONCE);
    for key in long.take(7_000) {
        replica.apply(Record::new(key, version, Version::NONE, Stamp::at(1), vec![], vec![], Some(vec![].into())).expect("a record"));
    }
    let mut buckets: VecDeque<u16> = (0..BUCKETS_AT_ONCE as u16).collect();
    let mut lines = 0;
    while !buckets.is_empty() {
        let answer = answer(&replica, true, &Message::AskLists { session: 1, buckets: buckets.iter().copied().collect() });
        let answer = answer.expect("an answer");
        assert!(answer.encode().len() < crate::wire::MAX_MESSAGE / 2);
        let Message::Lists { lists, .. } = answer else { panic!("lists") };
        assert!(!lists.is_empty());
        for (bucket, list) in lists {
            assert_eq!(buckets.pop_front(), Some(bucket));
            lines += list.len();
        }
    }
    assert_eq!(lines, 7_000);
}
