use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{ChildStdout, Command, Stdio};

use schema::json;

use super::*;

fn consumer(n: u128) -> Arc<Row> {
    let id = Uuid::from_u128(n);
    let body = json!({"id": id.to_string(), "username": format!("user-{n}")});
    let entity = model::entity("consumers").expect("an entity of the model");
    Arc::new(Row::new(entity, id, body.as_object().expect("an object")))
}

fn put(n: u128) -> Edit {
    Edit::Put(consumer(n))
}

fn ids(store: &Embedded) -> Vec<u128> {
    let mut ids: Vec<_> = store.load().expect("a store that can be read").rows.iter().map(|row| row.id.as_u128()).collect();
    ids.sort_unstable();
    ids
}

/// A closed store of 200 rows: its directory and its file.
fn stored() -> (tempfile::TempDir, PathBuf) {
    let prefix = tempfile::tempdir().unwrap();
    let store = Embedded::open(prefix.path()).unwrap();
    store.commit(&(1..=200).map(put).collect::<Vec<_>>()).unwrap();
    let path = store.path().to_owned();
    drop(store);
    (prefix, path)
}

#[test]
fn rows_survive() {
    let prefix = tempfile::tempdir().unwrap();
    let store = Embedded::open(prefix.path()).unwrap();
    assert_eq!(ids(&store), [0; 0]);
    let entity = model::entity("consumers").unwrap();
    let ending = Row::from_text(entity, Uuid::from_u128(9), "{}".into()).expiring(Some(77));
    store.commit(&[put(1), put(2), Edit::Put(Arc::new(ending))]).unwrap();
    store.commit(&[Edit::Remove(entity, Uuid::from_u128(1)), Edit::Remove(entity, Uuid::from_u128(5))]).unwrap();
    let mode = store.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(store);
    let store = Embedded::open(prefix.path()).unwrap();
    assert_eq!(ids(&store), [2, 9]);
    let rows = store.load().unwrap().rows;
    assert_eq!(rows.iter().find(|row| row.id.as_u128() == 9).unwrap().expires(), Some(77));
    assert_eq!(rows.iter().find(|row| row.id.as_u128() == 2).unwrap().text(), consumer(2).text());
}

#[test]
fn a_second_process_is_refused() {
    let prefix = tempfile::tempdir().unwrap();
    let _store = Embedded::open(prefix.path()).unwrap();
    let error = Embedded::open(prefix.path()).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn an_unwritable_prefix_is_named() {
    let prefix = tempfile::tempdir().unwrap();
    std::fs::write(prefix.path().join("data"), "not a directory").unwrap();
    let error = Embedded::open(prefix.path()).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn a_foreign_file_is_refused() {
    for content in [&b""[..], b"x", &[b'{'; 100_000]] {
        let (prefix, path) = stored();
        std::fs::write(&path, content).unwrap();
        let error = Embedded::open(prefix.path()).err().expect("no store");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
    }
}

#[test]
fn a_later_format_is_refused() {
    let (prefix, path) = stored();
    let database = Builder::new().open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(FACTS).unwrap().insert("format", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = Embedded::open(prefix.path()).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn a_lost_or_altered_row_is_noticed() {
    let change = |change: &dyn Fn(&mut redb::Table<(&str, u128), &[u8]>)| {
        let (prefix, path) = stored();
        let database = Builder::new().open(&path).unwrap();
        let write = database.begin_write().unwrap();
        change(&mut write.open_table(ROWS).unwrap());
        write.commit().unwrap();
        drop(database);
        Embedded::open(prefix.path()).unwrap().load().err().expect("a damaged store").to_string()
    };
    let lost = change(&|rows| drop(rows.remove(("consumers", 7)).unwrap()));
    assert!(lost.contains("should hold 200 rows and holds 199"), "{lost}");
    let altered = change(&|rows| {
        let mut bytes = rows.get(("consumers", 7)).unwrap().unwrap().value().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        rows.insert(("consumers", 7), bytes.as_slice()).unwrap();
    });
    assert!(altered.contains("does not match its checksum"), "{altered}");
}

/// Damage anywhere in the file gives an error or does no harm; it never makes rows disappear in silence.
#[test]
fn damage_is_never_silent() {
    let (_origin, path) = stored();
    let whole = std::fs::read(&path).unwrap();
    for step in 0..60 {
        let prefix = tempfile::tempdir().unwrap();
        std::fs::create_dir(prefix.path().join("data")).unwrap();
        let mut bytes = whole.clone();
        if step < 10 {
            bytes.truncate(whole.len() * step / 10);
        } else {
            let at = whole.len() * (step - 10) / 50;
            let end = (at + 64).min(whole.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = !*byte);
        }
        std::fs::write(prefix.path().join("data/troop.redb"), bytes).unwrap();
        match Embedded::open(prefix.path()).and_then(|store| store.load()) {
            Ok(loaded) => assert_eq!(loaded.rows.len(), 200, "step {step}"),
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "step {step}: {error}"),
        }
    }
}

/// Rows of an entity that this version does not know stay on the disk and are not in effect.
#[test]
fn unknown_entities_are_kept() {
    let (prefix, path) = stored();
    let database = Builder::new().open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let text = b"{}";
    let mut bytes = checksum("novelties", 1, &[0; 8], text).to_le_bytes().to_vec();
    bytes.extend([0; 8]);
    bytes.extend(text);
    write.open_table(ROWS).unwrap().insert(("novelties", 1), bytes.as_slice()).unwrap();
    write.open_table(FACTS).unwrap().insert("rows", 201).unwrap();
    write.commit().unwrap();
    drop(database);
    let store = Embedded::open(prefix.path()).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.rows.len(), loaded.left_out.len()), (200, 1));
    store.commit(&[put(201)]).unwrap();
    assert_eq!(store.load().unwrap().left_out.len(), 1);
}

const PREFIX: &str = "TROOP_TEST_STORE_PREFIX";

/// Not a test of its own: what [`an_acknowledged_commit_survives_a_kill`] runs in a process that it kills.
#[test]
fn writer_that_is_killed() {
    let Some(prefix) = std::env::var_os(PREFIX) else { return };
    let store = Embedded::open(Path::new(&prefix)).unwrap();
    let mut out = std::io::stdout();
    for n in 1..=1000 {
        store.commit(&[put(n)]).unwrap();
        writeln!(out, "\nacknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn an_acknowledged_commit_survives_a_kill() {
    let prefix = tempfile::tempdir().unwrap();
    for kill_after in [1, 40, 333] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::embedded::tests::writer_that_is_killed", "--nocapture"])
            .env(PREFIX, prefix.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged = |lines: &mut Lines<BufReader<ChildStdout>>| {
            lines.find_map(|line| line.ok()?.strip_prefix("acknowledged ")?.parse::<u128>().ok())
        };
        let mut last = 0;
        while last < kill_after {
            last = acknowledged(&mut lines).expect("the writer goes on");
        }
        child.kill().unwrap();
        while let Some(n) = acknowledged(&mut lines) {
            last = n;
        }
        child.wait().unwrap();
        let store = Embedded::open(prefix.path()).unwrap();
        let ids = ids(&store);
        assert!((1..=last).all(|n| ids.binary_search(&n).is_ok()), "acknowledged {last}, found {}", ids.len());
    }
}
