//! Scenes without random faults: one thing happens, and what must follow follows.

use super::*;

fn draft(id: &str, body: Option<&str>) -> Draft {
    let body = body.map(|body| body.as_bytes().into());
    Draft { key: Key::new("service", id), parents: vec![], unique: vec![], body, expect: None }
}

impl World {
    /// Lets the cluster form.
    pub fn settle(&mut self) {
        self.faults = false;
        self.converge(20_000).expect("the cluster forms");
    }

    fn written(&mut self, node: usize, draft: Draft) {
        let ticket = self.write(node, vec![draft], Concern::All);
        self.run_until(self.now + 1_000);
        let answer = &self.answers[&ticket];
        assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    }

    /// Every node is asked to create another entity of one name at the same moment; how many are told that they have.
    pub fn create_everywhere(&mut self, name: &str) -> usize {
        let unique = Unique { field: "name".into(), value: name.into(), exclusive: true };
        let tickets: Vec<u64> = (0..self.nodes.len())
            .map(|node| {
                let mut draft = draft(&format!("of {node}"), Some("{}"));
                draft.unique = vec![unique.clone()];
                let ticket = self.write(node, vec![draft], Concern::Majority);
                let later = self.rng.random_range(0..3);
                self.run_until(self.now + later);
                ticket
            })
            .collect();
        self.run_until(self.now + 2_000);
        self.converge(20_000).expect("they agree");
        self.check().expect("one owner");
        tickets.iter().filter(|ticket| matches!(self.answers[ticket], Answer::Written { .. })).count()
    }

    pub fn write_to_all(&mut self) {
        let ticket = self.write(0, vec![draft("1", Some("{}"))], Concern::All);
        let before = self.now;
        while !self.answers.contains_key(&ticket) {
            self.step();
        }
        assert!(self.now - before < 100, "it took {} ms", self.now - before);
        assert!(matches!(self.answers[&ticket], Answer::Written { applied: 3, of: 3, unasked: 0, .. }));
        assert!(self.nodes.iter().all(|node| node.serves.contains_key(&Key::new("service", "1"))));
    }

    pub fn fresh_node(&mut self) {
        for n in 0..2_000 {
            let drafts = vec![draft(&format!("{n}"), Some("{\"of\":\"many\"}"))];
            self.write(n % 3, drafts, Concern::None);
            if n % 50 == 0 {
                self.run_until(self.now + 50);
            }
        }
        self.converge(20_000).expect("they agree");
        let fresh = self.add_node();
        while !self.nodes[fresh].engine.as_ref().is_some_and(Engine::is_ready) {
            self.step();
            let ready = self.nodes[fresh].engine.as_ref().is_some_and(Engine::is_ready);
            assert!(!ready || self.nodes[fresh].serves.len() == 2_000, "ready with {}", self.nodes[fresh].serves.len());
        }
        let snapshots = self.nodes[fresh].engine.as_ref().map(|engine| engine.counters().snapshots);
        assert_eq!(snapshots, Some(1));
        self.converge(20_000).expect("they agree");
        self.check().expect("the same everywhere");
    }

    pub fn away_for_too_long(&mut self) {
        self.written(0, draft("deleted meanwhile", Some("{}")));
        self.written(0, draft("kept", Some("{}")));
        self.converge(20_000).expect("they agree");
        self.nodes[2].engine = None;
        self.written(0, draft("deleted meanwhile", None));
        self.run_until(self.now + 200_000);
        self.written(1, draft("new", Some("{}")));
        assert!(!self.nodes[0].disk.contains_key(&Key::new("service", "deleted meanwhile")), "the tombstone is purged");
        self.boot(2);
        self.converge(60_000).expect("they agree");
        self.check().expect("the same everywhere");
        for node in &self.nodes {
            let ids: Vec<&str> = node.serves.keys().map(|key| &*key.id).collect();
            assert_eq!(ids, ["kept", "new"]);
        }
    }

    pub fn poison(&mut self) {
        self.written(0, draft("good", Some("{}")));
        self.converge(20_000).expect("they agree");
        self.run_until(self.now + 10_000);
        self.write(0, vec![draft("poison", Some("{}"))], Concern::None);
        let poison = Key::new("service", "poison");
        while !self.nodes[0].serves.contains_key(&poison) {
            self.step();
        }
        for _ in 0..2 {
            // It ends the node whenever it is put in effect: now, and right after the start.
            assert!(self.nodes[0].serves.contains_key(&poison));
            self.nodes[0].engine = None;
            self.boot(0);
            self.run_until(self.now + 300);
        }
        assert!(!self.nodes[0].serves.contains_key(&poison), "in quarantine");
        assert!(self.nodes[0].serves.contains_key(&Key::new("service", "good")));
        let now = self.time_of(0);
        let status = self.nodes[0].engine.as_ref().map(|engine| engine.status(now)).expect("it runs");
        assert_eq!(status.quarantined, std::slice::from_ref(&poison));
        self.give(0, Event::Release { ticket: 90_000, key: poison.clone() });
        self.run_until(self.now + 300);
        assert!(self.nodes[0].serves.contains_key(&poison), "an operator may know better");
        // A newer version gets a new chance by itself.
        self.run_until(self.now + 5_000);
        self.written(1, draft("poison", Some("{\"harmless\":true}")));
        self.converge(20_000).expect("they agree");
        assert!(self.nodes[0].serves.contains_key(&poison));
        self.check().expect("the same everywhere");
    }

    pub fn wrong_clock(&mut self) {
        self.nodes[0].clock = 900;
        self.run_until(self.now + 2_000);
        let off = self.write(0, vec![draft("1", Some("{}"))], Concern::None);
        let fine = self.write(1, vec![draft("2", Some("{}"))], Concern::None);
        self.run_until(self.now + 1_000);
        assert_eq!(self.answers[&off], Answer::Refused(cluster::engine::Refusal::Skewed(-900)));
        assert!(matches!(self.answers[&fine], Answer::Written { .. }));
        self.nodes[0].clock = 0;
        self.run_until(self.now + 2_000);
        self.written(0, draft("1", Some("{}")));
    }

    pub fn barrier(&mut self) {
        for n in 0..200 {
            self.write(0, vec![draft(&format!("{n}"), Some("{}"))], Concern::None);
        }
        self.give(0, Event::Barrier { ticket: 90_000, timeout: 3_000 });
        while !self.answers.contains_key(&90_000) {
            self.step();
        }
        assert_eq!(self.answers[&90_000], Answer::Barrier { missing: vec![] });
        assert!(self.nodes.iter().all(|node| node.serves.len() == 200));
        // A node that is cut off and not known to be dead is named.
        self.cut = BTreeSet::from([(0, 2), (2, 0)]);
        self.write(0, vec![draft("more", Some("{}"))], Concern::None);
        self.give(0, Event::Barrier { ticket: 90_001, timeout: 1_000 });
        self.run_until(self.now + 1_500);
        assert_eq!(self.answers[&90_001], Answer::Barrier { missing: vec![NodeId(3)] });
    }

    pub fn forget(&mut self) {
        self.written(0, draft("1", Some("{}")));
        self.converge(20_000).expect("they agree");
        self.nodes[2].engine = None;
        self.written(0, draft("1", None));
        self.run_until(self.now + 60_000);
        let key = Key::new("service", "1");
        assert!(self.nodes[0].disk.contains_key(&key), "a member may not have it yet");
        self.give(0, Event::Forget { ticket: 90_000, node: NodeId(2) });
        assert!(matches!(self.answers[&90_000], Answer::Refused(_)), "it is alive");
        self.give(0, Event::Forget { ticket: 90_001, node: NodeId(3) });
        self.run_until(self.now + 60_000);
        assert!(matches!(self.answers[&90_001], Answer::Written { .. }));
        assert!(!self.nodes[0].disk.contains_key(&key) && !self.nodes[1].disk.contains_key(&key));
        // It joins again when it comes back.
        self.boot(2);
        self.converge(60_000).expect("they agree");
        assert!(self.nodes[0].engine.as_ref().is_some_and(|engine| engine.members().len() == 3));
        self.check().expect("the same everywhere");
        assert!(self.nodes.iter().all(|node| node.serves.is_empty()));
    }
}
