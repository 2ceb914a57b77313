mod fresh;

use super::*;
use crate::record::{Claim, Record};
use crate::wire::{Blob, Wanted};

const PEER: NodeId = NodeId(2);

fn now(mono: u64) -> Now {
    Now { wall: 1_790_000_000_000 + mono, mono }
}

fn engine(change: impl FnOnce(&mut Config)) -> Engine {
    let mut config = Config::new(NodeId(1), "one");
    config.has_seeds = false;
    change(&mut config);
    Engine::new(config, Kept::default())
}

fn draft(id: &str) -> Draft {
    Draft { key: Key::new("t", id), parents: vec![], unique: vec![], body: Some(b"{}".as_slice().into()), expect: None }
}

fn write(ticket: u64, drafts: Vec<Draft>) -> Event {
    Event::Write { ticket, drafts, concern: Concern::Majority, timeout: 500 }
}

/// Lets the disk and the router do all that they are asked for, at once; answers what else was to be done.
fn settle(engine: &mut Engine, actions: Vec<Action>, at: Now) -> Vec<Action> {
    let mut open: VecDeque<Action> = actions.into();
    let mut rest = Vec::new();
    while let Some(action) = open.pop_front() {
        match action {
            Action::Commit { commit, .. } => open.extend(engine.handle(Event::Committed { commit }, at)),
            Action::Apply { commit, .. } => open.extend(engine.handle(Event::Applied { commit, rejected: vec![] }, at)),
            other => rest.push(other),
        }
    }
    rest
}

fn answers(actions: &[Action]) -> Vec<(u64, Answer)> {
    let answer = |action: &Action| match action {
        Action::Answer { ticket, answer } => Some((*ticket, answer.clone())),
        _ => None,
    };
    actions.iter().filter_map(answer).collect()
}

fn push(seq: u64, id: &str) -> Event {
    let version = Version { life: 1, stamp: crate::clock::Stamp::new(1_790_000_000_000, 0, PEER) };
    let record = Record::new(Key::new("t", id), version, Version::NONE, version.stamp, vec![], vec![], Some(b"{}".as_slice().into()));
    Event::Message { from: PEER, message: Message::Push { seq, records: vec![Blob::of(&record.expect("a record"))] } }
}

#[test]
fn a_write_alone_is_answered_when_it_is_in_effect_and_not_before() {
    let mut engine = engine(|_| ());
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    let actions = engine.handle(write(7, vec![draft("1")]), now(10));
    let [Action::Commit { commit, changes }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(changes.put.len(), 1);
    let actions = engine.handle(Event::Committed { commit: *commit }, now(11));
    assert!(answers(&actions).is_empty());
    let actions = settle(&mut engine, actions, now(12));
    assert!(matches!(answers(&actions).as_slice(), [(7, Answer::Written { applied: 1, of: 1, .. })]), "{actions:?}");
}

#[test]
fn what_arrives_during_a_commit_is_made_durable_together() {
    let mut engine = engine(|_| ());
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    let first = engine.handle(write(1, vec![draft("1")]), now(1));
    for ticket in 2..50 {
        assert!(engine.handle(write(ticket, vec![draft(&ticket.to_string())]), now(2)).is_empty());
    }
    let [Action::Commit { commit, .. }] = first.as_slice() else { panic!("{first:?}") };
    let apply = engine.handle(Event::Committed { commit: *commit }, now(3));
    let [Action::Apply { commit, .. }, ..] = apply.as_slice() else { panic!("{apply:?}") };
    let next = engine.handle(Event::Applied { commit: *commit, rejected: vec![] }, now(4));
    assert!(next.iter().any(|action| matches!(action, Action::Commit { changes, .. } if changes.put.len() == 48)), "{next:?}");
}

#[test]
fn an_edit_in_the_same_batch_knows_the_one_before_it() {
    let mut engine = engine(|_| ());
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    let delete = Draft { body: None, ..draft("1") };
    let actions = engine.handle(write(1, vec![draft("1"), delete.clone(), draft("1"), delete]), now(1));
    let [Action::Commit { changes, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(changes.put.len(), 1);
    assert!(!changes.put[0].is_alive());
    settle(&mut engine, actions, now(2));
    assert_eq!(engine.replica().conflicts().total(), 0);
}

#[test]
fn a_writer_that_has_seen_another_version_is_refused() {
    let mut engine = engine(|_| ());
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    let actions = engine.handle(write(1, vec![Draft { expect: Some(Version::NONE), ..draft("1") }]), now(1));
    settle(&mut engine, actions, now(1));
    let actions = engine.handle(write(2, vec![Draft { expect: Some(Version::NONE), ..draft("1") }]), now(2));
    assert!(matches!(answers(&actions).as_slice(), [(2, Answer::Refused(Refusal::Changed(_)))]), "{actions:?}");
}

#[test]
fn full_queues_refuse_writers_and_do_not_acknowledge_peers() {
    let mut engine = engine(|config| config.max_queued = 10);
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    engine.handle(Event::PeerUp(PEER), now(0));
    // The disk hangs: nothing of this is ever committed.
    let hanging = engine.handle(write(1, vec![draft("1")]), now(1));
    let mut refused = 0;
    for ticket in 2..40 {
        let answers = answers(&engine.handle(write(ticket, vec![draft(&ticket.to_string())]), now(2)));
        refused += usize::from(matches!(answers.as_slice(), [(_, Answer::Refused(Refusal::Busy))]));
        assert!(engine.handle(push(ticket, "x"), now(2)).is_empty());
    }
    assert!(refused >= 28, "{refused}");
    assert!(engine.counters().dropped >= 28);
    assert_eq!(engine.status(now(3)).queued, 10);
    let rest = settle(&mut engine, hanging, now(4));
    let acks = rest.iter().filter(|action| matches!(action, Action::Send { message: Message::Ack { .. }, .. })).count();
    assert_eq!(acks as u64, 38 - engine.counters().dropped);
}

#[test]
fn a_peer_that_acknowledges_nothing_is_owed_a_bounded_amount() {
    let mut engine = engine(|_| ());
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    engine.handle(Event::PeerUp(PEER), now(0));
    let mut pushed = 0;
    for ticket in 1..40 {
        let large = Draft { body: Some(vec![b' '; 1_000_000].into()), ..draft(&ticket.to_string()) };
        let actions = engine.handle(write(ticket, vec![large]), now(ticket));
        for action in settle(&mut engine, actions, now(ticket)) {
            if let Action::Send { message: Message::Push { records, .. }, .. } = action {
                pushed += records.iter().map(|blob| blob.0.len()).sum::<usize>();
            }
        }
    }
    assert!(pushed < 9_000_000, "{pushed}");
    // After a while it is taken for lost.
    let actions = engine.handle(Event::Tick, now(20_000));
    let actions = settle(&mut engine, actions, now(20_000));
    assert!(answers(&actions).iter().all(|(_, answer)| matches!(answer, Answer::Written { applied: 1, of: 2, .. })));
}

#[test]
fn a_fresh_node_takes_no_writes_until_it_has_what_its_peers_have() {
    let mut engine = engine(|config| config.has_seeds = true);
    let actions = engine.handle(write(1, vec![draft("1")]), now(0));
    assert!(answers(&actions).contains(&(1, Answer::Refused(Refusal::NotReady))));
    settle(&mut engine, actions, now(0));
    engine.handle(Event::PeerUp(PEER), now(1));
    let state = State { ready: true, digest: engine.replica().digest() };
    engine.handle(Event::PeerState { node: PEER, state }, now(2));
    assert!(engine.is_ready());
}

#[test]
fn a_fresh_node_waits_for_whom_it_has_reached_before_it_begins_alone() {
    let mut engine = engine(|config| config.has_seeds = true);
    engine.handle(Event::Tick, now(0));
    engine.handle(Event::Reached(PEER), now(9_000));
    engine.handle(Event::Tick, now(10_500));
    assert!(!engine.is_ready());
    engine.handle(Event::Tick, now(19_500));
    assert!(engine.is_ready());
}

#[test]
fn the_clusters_own_kinds_and_writes_that_are_too_large_are_refused() {
    let mut engine = engine(|_| ());
    let own = Draft { key: Key::new(MEMBER, "x"), ..draft("x") };
    let actions = engine.handle(write(1, vec![own]), now(0));
    assert!(matches!(answers(&actions).as_slice(), [(1, Answer::Refused(Refusal::Invalid(_)))]), "{actions:?}");
    let unique = |n: usize| Unique { field: "name".into(), value: n.to_string().into(), exclusive: true };
    let many = |n: usize| (0..n).map(unique).collect::<Vec<_>>();
    let large = |n: usize| Draft { body: Some(vec![b' '; n].into()), ..draft("1") };
    for (drafts, text) in [
        (vec![draft("1"); 10_001], "entities in one change: 10001, and a cluster takes at most 10000"),
        (vec![draft("0"), large(5_000_000)], "bytes of t/1: 5000000, and a cluster takes at most 4194304"),
        (vec![Draft { unique: many(257), ..draft("1") }], "unique values of t/1: 257, and a cluster takes at most 256"),
        (vec![Draft { parents: vec![Key::new("t", "0"); 300], ..draft("1") }], "references of t/1: 300, and a cluster takes at most 256"),
        (vec![Draft { unique: many(250), ..draft("1") }; 41], "new unique values in one change: 10250, and a cluster takes at most 10000"),
    ] {
        let answers = answers(&engine.handle(write(1, drafts), now(0)));
        let [(1, Answer::Refused(refusal @ Refusal::TooLarge { .. }))] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(refusal.to_string(), text);
    }
}

/// The question about many values is more than a message can hold.
#[test]
fn many_new_values_are_asked_about_in_several_messages() {
    let value = |n: usize| -> std::sync::Arc<str> { format!("{n:01000}").into() };
    let named =
        |n: usize| Draft { unique: vec![Unique { field: "name".into(), value: value(n), exclusive: true }], ..draft(&n.to_string()) };
    for taken in [None, Some(0), Some(5_678), Some(9_999)] {
        let mut engine = engine(|_| ());
        let first = engine.handle(Event::Tick, now(0));
        settle(&mut engine, first, now(0));
        engine.handle(Event::PeerUp(PEER), now(0));
        let actions = engine.handle(write(7, (0..10_000).map(named).collect()), now(1));
        let mut asked = 0;
        let mut told = Vec::new();
        for action in actions {
            let Action::Send { to: PEER, message } = action else { panic!("{action:?}") };
            assert!(message.encode().len() <= 2 * crate::wire::CHUNK);
            let Message::Claim { round, wanted, .. } = message else { panic!("{message:?}") };
            let here = taken.and_then(|taken| wanted.iter().position(|wanted| wanted.value == value(taken)));
            asked += wanted.len();
            assert!(told.is_empty(), "it waits for all");
            let answer = Message::Claimed { round, taken: here.map(|at| at as u32).into_iter().collect() };
            let actions = engine.handle(Event::Message { from: PEER, message: answer }, now(2));
            told.extend(answers(&actions));
            if taken.is_none() {
                settle(&mut engine, actions, now(2));
            }
            if !told.is_empty() {
                break;
            }
        }
        match taken {
            Some(taken) => {
                let (key, field) = (Key::new("t", taken.to_string()), "name".into());
                assert_eq!(told, [(7, Answer::Taken { key, field, value: value(taken) })]);
            }
            None => {
                assert_eq!(asked, 10_000);
                assert_eq!(engine.replica().digest().count, 10_001, "the member and all");
            }
        }
    }
}

#[test]
fn a_peer_is_told_when_what_it_brings_is_too_old() {
    let mut engine = engine(|_| ());
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    let mut replica = std::mem::take(&mut engine.replica);
    replica.raise_horizon(1_790_000_000_001);
    engine.replica = replica;
    let actions = engine.handle(push(5, "old"), now(10));
    let actions = settle(&mut engine, actions, now(10));
    assert!(actions.contains(&Action::Send { to: PEER, message: Message::Ack { seq: 5, refused: 1 } }), "{actions:?}");
    assert!(actions.contains(&Action::Send { to: PEER, message: Message::Stale { horizon: 1_790_000_000_001 } }));
}

/// Gives changes to the router and lets it refuse what the test says; answers what was put in effect and what was taken out.
fn apply(engine: &mut Engine, actions: Vec<Action>, refuse: &[&str], at: Now) -> (Vec<String>, Vec<Action>) {
    let mut open: VecDeque<Action> = actions.into();
    let (mut seen, mut rest) = (Vec::new(), Vec::new());
    while let Some(action) = open.pop_front() {
        match action {
            Action::Commit { commit, .. } => open.extend(engine.handle(Event::Committed { commit }, at)),
            Action::Apply { commit, changes } => {
                let name = |change: &Change| format!("{}{}", if change.effective.is_some() { "" } else { "-" }, change.key.id);
                seen.extend(changes.iter().map(name));
                let refused = changes.iter().filter(|change| change.effective.is_some() && refuse.contains(&&*change.key.id));
                let rejected = refused.map(|change| (change.key.clone(), "no".to_owned())).collect();
                open.extend(engine.handle(Event::Applied { commit, rejected }, at));
            }
            other => rest.push(other),
        }
    }
    (seen, rest)
}

#[test]
fn what_could_not_be_used_for_want_of_its_parent_comes_when_the_parent_can_be_used() {
    let mut engine = engine(|_| ());
    let child = |id: &str, parent: &str| Draft { parents: vec![Key::new("t", parent)], ..draft(id) };
    let first = engine.handle(write(1, vec![draft("a"), child("b", "a"), child("c", "b")]), now(0));
    let (_, rest) = apply(&mut engine, first, &["a", "b", "c"], now(1));
    assert!(matches!(answers(&rest).as_slice(), [(1, Answer::Written { applied: 0, of: 1, .. })]), "{rest:?}");
    assert_eq!(engine.status(now(2)).bad.len(), 3);
    assert_eq!(engine.standing(&Key::new("t", "b")).unusable.as_deref(), Some("no"));
    let corrected = engine.handle(write(2, vec![Draft { body: Some(b"{ }".as_slice().into()), ..draft("a") }]), now(3));
    let (seen, _) = apply(&mut engine, corrected, &[], now(4));
    assert_eq!(seen, ["a", "b", "c"]);
    assert!(engine.status(now(5)).bad.is_empty());
    // What goes is no longer among the bad.
    let broken = engine.handle(write(3, vec![child("b", "a")]), now(6));
    apply(&mut engine, broken, &["b"], now(7));
    let gone = engine.handle(write(4, vec![Draft { body: None, ..draft("a") }]), now(8));
    let (seen, _) = apply(&mut engine, gone, &[], now(9));
    assert_eq!(seen, ["-a", "-b", "-c"]);
    assert!(engine.status(now(10)).bad.is_empty());
}

#[test]
fn a_push_that_the_node_cannot_use_is_not_acknowledged_as_in_effect() {
    let mut engine = engine(|_| ());
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    let actions = engine.handle(push(5, "x"), now(1));
    let (_, rest) = apply(&mut engine, actions, &["x"], now(2));
    assert!(rest.contains(&Action::Send { to: PEER, message: Message::Ack { seq: 5, refused: 1 } }), "{rest:?}");
    assert!(!rest.iter().any(|action| matches!(action, Action::Send { message: Message::Stale { .. }, .. })));
}

#[test]
fn a_value_that_a_write_takes_from_another_record_is_not_asked_for() {
    let mut engine = engine(|_| ());
    let named =
        |id: &str, name: &str| Draft { unique: vec![Unique { field: "name".into(), value: name.into(), exclusive: true }], ..draft(id) };
    let first = engine.handle(write(1, vec![named("1", "a"), named("2", "b")]), now(0));
    settle(&mut engine, first, now(0));
    engine.handle(Event::PeerUp(PEER), now(1));
    let gone = Draft { body: None, ..draft("1") };
    let actions = engine.handle(write(2, vec![gone, named("3", "a")]), now(2));
    assert!(matches!(actions.as_slice(), [Action::Commit { .. }]), "{actions:?}");
    settle(&mut engine, actions, now(2));
    // One that keeps its value does not give it.
    let actions = engine.handle(write(3, vec![named("2", "b"), named("4", "b")]), now(3));
    assert!(matches!(answers(&actions).as_slice(), [(3, Answer::Taken { .. })]), "{actions:?}");
    let actions = engine.handle(write(4, vec![named("2", "c"), named("4", "b")]), now(4));
    let asked = actions.iter().filter_map(|action| match action {
        Action::Send { message: Message::Claim { wanted, .. }, .. } => Some(wanted.iter().map(|wanted| &*wanted.value).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [["c"]]);
}

#[test]
fn a_value_that_a_peer_gave_and_took_back_is_free_at_once() {
    let mut engine = engine(|_| ());
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    let (field, value): (std::sync::Arc<str>, std::sync::Arc<str>) = ("name".into(), "a".into());
    let wanted = Wanted { key: Key::new("t", "theirs"), field: field.clone(), value: value.clone() };
    let stamp = crate::clock::Stamp::new(1_790_000_000_000, 0, PEER);
    engine.handle(Event::Message { from: PEER, message: Message::Claim { round: 1, stamp, wanted: vec![wanted] } }, now(1));
    let own = || Draft { unique: vec![Unique { field: field.clone(), value: value.clone(), exclusive: true }], ..draft("ours") };
    assert!(matches!(answers(&engine.handle(write(1, vec![own()]), now(2))).as_slice(), [(1, Answer::Taken { .. })]));
    let versions = [(1, true), (2, false)].map(|(life, alive)| {
        let claim = Claim { field: field.clone(), value: value.clone(), since: stamp, exclusive: true };
        let (claims, body) = if alive { (vec![claim], Some(b"{}".as_slice().into())) } else { (vec![], None) };
        let record = Record::new(Key::new("t", "theirs"), Version { life, stamp }, Version::NONE, stamp, vec![], claims, body);
        Blob::of(&record.expect("a record"))
    });
    let records = versions.into();
    let actions = engine.handle(Event::Message { from: PEER, message: Message::Push { seq: 1, records } }, now(3));
    settle(&mut engine, actions, now(3));
    assert!(matches!(engine.handle(write(2, vec![own()]), now(4)).as_slice(), [Action::Commit { .. }]));
}

#[test]
fn a_lost_edit_is_settled_by_an_edit_that_knows_of_the_winner() {
    let mut engine = engine(|_| ());
    let first = engine.handle(write(1, vec![draft("x")]), now(0));
    settle(&mut engine, first, now(0));
    let here = engine.replica().version(&Key::new("t", "x"));
    let version = Version { stamp: crate::clock::Stamp::new(here.stamp.millis() + 5, 0, PEER), ..here };
    // Made without knowledge of ours.
    let record = Record::new(Key::new("t", "x"), version, Version::NONE, here.stamp, vec![], vec![], Some(b"{}".as_slice().into()));
    let push = Message::Push { seq: 1, records: vec![Blob::of(&record.expect("a record"))] };
    let actions = engine.handle(Event::Message { from: PEER, message: push }, now(6));
    settle(&mut engine, actions, now(6));
    let standing = engine.standing(&Key::new("t", "x"));
    assert_eq!(standing.losers.iter().map(|(_, settled)| *settled).collect::<Vec<_>>(), [false]);
    assert_eq!(engine.in_conflict(10).len(), 1);
    let actions = engine.handle(write(2, vec![draft("x")]), now(7));
    settle(&mut engine, actions, now(7));
    assert!(engine.in_conflict(10).is_empty());
    assert_eq!(engine.standing(&Key::new("t", "x")).losers.len(), 1, "it is remembered");
}

#[test]
fn what_is_made_is_later_than_the_horizon_whatever_the_clock_shows() {
    let mut config = Config::new(NodeId(1), "one");
    config.has_seeds = false;
    // The clock was a day ahead when the horizon was raised.
    let horizon = now(86_400_000).wall;
    let mut engine = Engine::new(config, Kept { meta: Meta { horizon, ..Meta::default() }, ..Kept::default() });
    let first = engine.handle(write(1, vec![draft("1")]), now(0));
    settle(&mut engine, first, now(1));
    assert!(engine.replica().is_effective(&Key::new("t", "1")));
    assert!(engine.replica().version(&Key::new("t", "1")).stamp.millis() > horizon);
}

#[test]
fn a_node_whose_clock_is_off_purges_nothing() {
    let mut engine = engine(|config| config.tombstone_life = 24_000);
    let first = engine.handle(Event::Tick, now(0));
    settle(&mut engine, first, now(0));
    let first = engine.handle(write(1, vec![draft("1")]), now(1));
    settle(&mut engine, first, now(1));
    let gone = engine.handle(write(2, vec![Draft { body: None, ..draft("1") }]), now(2));
    settle(&mut engine, gone, now(2));
    let mut purged = |millis: i64, at: u64| {
        engine.handle(Event::PeerUp(PEER), now(at));
        engine.handle(Event::ClockOffset { node: PEER, millis }, now(at));
        let state = State { ready: true, digest: engine.replica().digest() };
        for event in [Event::PeerState { node: PEER, state }, Event::Tick] {
            let actions = engine.handle(event, now(at));
            settle(&mut engine, actions, now(at));
        }
        engine.replica().version(&Key::new("t", "1")) == Version::NONE
    };
    assert!(!purged(-100_000, 100_000));
    assert!(purged(0, 200_000));
}
