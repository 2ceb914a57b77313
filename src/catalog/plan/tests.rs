use std::sync::LazyLock;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use schema::Record;
use schema::record::Chosen;

use super::*;
use crate::model::entity;

fn context() -> Context<'static> {
    Context { now: 1_700_000_000.0, choose: &|_, _| Some(plugin()), ..Context::bare() }
}

/// A plugin whose configuration is empty.
fn plugin() -> Chosen {
    static CONFIG: LazyLock<Record> = LazyLock::new(Record::new);
    Chosen { config: Some(&CONFIG), ..Chosen::default() }
}

fn object(value: Value) -> Object {
    value.as_object().cloned().expect("the test gives an object")
}

fn of(name: &str) -> &'static EntitySchema {
    entity(name).expect("an entity of the model")
}

fn unique(field: &'static str, value: &str) -> Key {
    Key::Unique { field, value: value.to_owned() }
}

/// A catalog that is changed one change after the other.
#[derive(Default)]
struct World {
    catalog: Catalog,
}

impl World {
    fn make(&mut self, change: Change) -> Result<Written, WriteError> {
        let plan = self.catalog.plan(change, &context())?;
        let written = plan.written();
        self.catalog = plan.next;
        Ok(written)
    }

    fn post(&mut self, entity: &str, input: Value) -> Result<Object, WriteError> {
        let written = self.make(Change::Create { entity: of(entity), input: object(input) })?;
        assert!(written.created);
        Ok(written.shown.expect("what was created"))
    }

    fn put(&mut self, entity: &str, key: Key, input: Value) -> Result<Written, WriteError> {
        self.make(Change::Upsert { entity: of(entity), key, scope: None, input: object(input) })
    }

    fn patch(&mut self, entity: &str, key: Key, input: Value) -> Result<Object, WriteError> {
        let written = self.make(Change::Update { entity: of(entity), key, scope: None, input: object(input) })?;
        Ok(written.shown.expect("what was updated"))
    }

    fn delete(&mut self, entity: &str, key: Key) -> Result<Written, WriteError> {
        self.make(Change::Delete { entity: of(entity), key, scope: None })
    }
}

#[test]
fn a_service_and_its_route() {
    let mut world = World::default();
    let service = world.post("services", json!({"name": "s", "host": "h"})).unwrap();
    assert_eq!(service["port"], 80);
    assert_eq!(service["created_at"], 1_700_000_000);
    let route = world.post("routes", json!({"paths": ["/"], "service": {"name": "s"}})).unwrap();
    assert_eq!(route["service"], json!({"id": service["id"]}));
    let error = world.delete("services", unique("name", "s")).unwrap_err();
    assert_eq!(error.message, "an existing 'routes' entity references this 'services' entity");
    assert_eq!(error.body()["fields"], json!({"@referenced_by": "routes"}));
    let id = route["id"].as_str().unwrap().parse().unwrap();
    world.delete("routes", Key::Id(id)).unwrap();
    world.delete("routes", Key::Id(id)).expect("deleting twice is no error");
    world.delete("services", unique("name", "s")).unwrap();
    assert!(world.catalog.is_empty());
}

#[test]
fn parents_must_be_there() {
    let mut world = World::default();
    let error = world.post("routes", json!({"paths": ["/"], "service": {"name": "x"}})).unwrap_err();
    let text = r#"the foreign key cannot be resolved with '{name="x"}' for an existing 'services' entity"#;
    assert_eq!(error.message, format!("foreign key unresolved (service.name: {text})"));
    assert_eq!((error.code, error.body()["fields"].clone()), (13, json!({"service": {"name": text}})));
    let id = Uuid::from_u128(5).to_string();
    let error = world.post("routes", json!({"paths": ["/"], "service": {"id": id}})).unwrap_err();
    assert_eq!(error.message, format!(r#"the foreign key '{{id="{id}"}}' does not reference an existing 'services' entity."#));
    let error = world.post("routes", json!({"paths": ["/"], "service": {}})).unwrap_err();
    assert_eq!(error.message, "schema violation (service.id: missing primary key)");
}

#[test]
fn values_are_unique() {
    let mut world = World::default();
    let bob = world.post("consumers", json!({"username": "bob"})).unwrap();
    let error = world.post("consumers", json!({"username": "bob"})).unwrap_err();
    assert_eq!((error.status(), error.message.as_str()), (409, r#"UNIQUE violation detected on '{username="bob"}'"#));
    let error = world.post("consumers", json!({"username": "other", "id": bob["id"]})).unwrap_err();
    assert_eq!(error.code, 3);
    world.post("consumers", json!({"username": "eve"})).unwrap();
    let error = world.patch("consumers", unique("username", "eve"), json!({"username": "bob"})).unwrap_err();
    assert_eq!(error.code, 5);
    world.patch("consumers", unique("username", "eve"), json!({"username": "eva"})).unwrap();
    world.post("consumers", json!({"username": "eve"})).expect("the name is free again");
}

#[test]
fn a_plugin_is_unique_in_its_scope() {
    let mut world = World::default();
    world.post("services", json!({"name": "s", "host": "h"})).unwrap();
    let global = json!({"name": "key-auth", "config": {}, "protocols": ["http"]});
    world.post("plugins", global.clone()).unwrap();
    let error = world.post("plugins", global).unwrap_err();
    assert_eq!(error.message, r#"UNIQUE violation detected on '{consumer=null,name="key-auth",route=null,service=null}'"#);
    let of_service = json!({"name": "key-auth", "config": {}, "protocols": ["http"], "service": {"name": "s"}});
    world.post("plugins", of_service.clone()).unwrap();
    assert_eq!(world.post("plugins", of_service).unwrap_err().code, 5);
    assert_eq!(world.catalog.len("plugins"), 2);
    world.delete("services", unique("name", "s")).unwrap();
    assert_eq!(world.catalog.len("plugins"), 1, "the service took its plugin along");
}

#[test]
fn put_replaces_and_creates() {
    let mut world = World::default();
    let made = world.put("services", unique("name", "s"), json!({"host": "h", "retries": 1})).unwrap();
    assert!(made.created);
    let first = made.shown.unwrap();
    let again = world.put("services", unique("name", "s"), json!({"host": "i"})).unwrap();
    assert!(!again.created);
    let second = again.shown.unwrap();
    assert_eq!((&second["id"], &second["host"], &second["retries"]), (&first["id"], &json!("i"), &json!(5)));
    let error = world.put("services", unique("name", "a b"), json!({"host": "h"})).unwrap_err();
    assert_eq!((error.code, error.name.as_str()), (10, "invalid unique name"));
    let id = Uuid::from_u128(77);
    let by_id = world.put("services", Key::Id(id), json!({"host": "h"})).unwrap();
    assert_eq!(by_id.shown.unwrap()["id"], id.to_string());
}

#[test]
fn patch_merges() {
    let mut world = World::default();
    world.post("upstreams", json!({"name": "u", "tags": ["a", "b"]})).unwrap();
    let patch = json!({"healthchecks": {"active": {"healthy": {"interval": 5}}}, "tags": ["c"]});
    let row = world.patch("upstreams", unique("name", "u"), patch).unwrap();
    assert_eq!(row["healthchecks"]["active"]["healthy"]["interval"], 5);
    assert_eq!(row["healthchecks"]["active"]["http_path"], "/");
    assert_eq!(row["tags"], json!(["c"]));
    let error = world.patch("services", unique("name", "none"), json!({})).unwrap_err();
    assert_eq!((error.status(), error.message.as_str()), (404, r#"could not find the entity with '{name="none"}'"#));
}

#[test]
fn rows_of_a_parent_are_named_within_it() {
    let mut world = World::default();
    let id = |row: Object| row["id"].as_str().unwrap().parse::<Uuid>().unwrap();
    let parents = ["u", "v"].map(|name| id(world.post("upstreams", json!({"name": name})).unwrap()));
    for parent in parents {
        world.post("targets", json!({"target": "h:80", "upstream": {"id": parent.to_string()}})).unwrap();
    }
    let twice = world.post("targets", json!({"target": "h:80", "upstream": {"name": "u"}})).unwrap_err();
    assert_eq!(twice.code, 5);
    let scope = Some(Scope { field: "upstream", parent: parents[0] });
    let change = Change::Delete { entity: of("targets"), key: unique("target", "h:80"), scope };
    world.make(change).unwrap();
    assert_eq!(world.catalog.children("targets", "upstream", parents[0]).count(), 0);
    assert_eq!(world.catalog.children("targets", "upstream", parents[1]).count(), 1);
    let other = world.catalog.children("targets", "upstream", parents[1]).next().unwrap().id;
    let change = Change::Upsert { entity: of("targets"), key: Key::Id(other), scope, input: object(json!({"target": "h:80"})) };
    assert_eq!(world.make(change).unwrap_err().code, 6, "the row of another parent stays out of reach");
}

#[test]
fn a_plugin_shares_a_protocol_with_its_route() {
    let mut world = World::default();
    world.post("services", json!({"name": "s", "host": "h"})).unwrap();
    let plugin = json!({"name": "cors", "config": {}, "protocols": ["grpc"], "service": {"name": "s"}});
    world.post("plugins", plugin.clone()).expect("a service without routes says nothing of protocols");
    world.post("routes", json!({"name": "r", "paths": ["/"], "service": {"name": "s"}})).unwrap();
    let error = world.post("plugins", json!({"name": "acl", "config": {}, "protocols": ["grpc"], "route": {"name": "r"}})).unwrap_err();
    assert_eq!(error.message, "schema violation (protocols: must match the associated route's protocols)");
    let error = world.put("plugins", unique("instance_name", "i"), plugin).unwrap_err();
    assert!(error.message.contains("at least one route pointing to this Plugin's service"), "{error}");
}

#[test]
fn all_or_nothing() {
    let mut world = World::default();
    let create = |input| Change::Create { entity: of("consumers"), input: object(input) };
    let changes = vec![create(json!({"username": "a"})), create(json!({"username": "a"}))];
    assert_eq!(world.make(Change::All(changes)).unwrap_err().code, 5);
    assert!(world.catalog.is_empty());
    world.make(Change::All(vec![create(json!({"username": "a"})), create(json!({"username": "b"}))])).unwrap();
    assert_eq!(world.catalog.len("consumers"), 2);
}

#[test]
fn imports_swap_names_and_replacements_remove_the_rest() {
    let consumer = |n: u128, name: &str| {
        let id = Uuid::from_u128(n);
        Arc::new(Row::new(of("consumers"), id, &object(json!({"id": id.to_string(), "username": name}))))
    };
    let mut world = World::default();
    world.make(Change::Import(vec![consumer(1, "a"), consumer(2, "b")])).unwrap();
    world.make(Change::Import(vec![consumer(1, "b"), consumer(2, "a")])).unwrap();
    assert_eq!(world.catalog.find("consumers", "username", "a").unwrap().id, Uuid::from_u128(2));
    assert_eq!(world.make(Change::Import(vec![consumer(3, "a")])).unwrap_err().code, 5);
    assert_eq!(world.make(Change::Replace(vec![consumer(2, "a"), consumer(3, "a")])).unwrap_err().code, 5);
    let plan = world.catalog.plan(Change::Replace(vec![consumer(2, "a"), consumer(3, "c")]), &context()).unwrap();
    assert_eq!(plan.edits.len(), 2, "what stays as it is costs nothing");
    assert_eq!(plan.next.rows("consumers").map(|row| row.id.as_u128()).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn rows_end() {
    let entity = of("keyauth_credentials");
    let mut world = World::default();
    world.post("consumers", json!({"username": "a"})).unwrap();
    let key = |key: &str, ttl: Value| json!({"key": key, "consumer": {"username": "a"}, "ttl": ttl});
    let shown = world.post(entity.name, key("k", json!(100))).unwrap();
    assert_eq!(shown["ttl"], 100);
    assert_eq!(world.post(entity.name, key("l", json!(0))).unwrap()["ttl"], Value::Null);
    let error = world.post(entity.name, key("m", json!("x"))).unwrap_err();
    assert_eq!(error.message, "schema violation (ttl: expected a number)");
    world.post(entity.name, key("n", json!(0.001))).unwrap();
    while world.catalog.find(entity.name, "key", "n").is_some() {
        std::thread::yield_now();
    }
    assert_eq!(world.catalog.len(entity.name), 3, "it is out of sight, and still there");
    world.post(entity.name, key("n", json!(50))).expect("a key that ended is free");
    world.make(Change::Sweep).unwrap();
    assert_eq!(world.catalog.len(entity.name), 3);
    assert!(world.catalog.find(entity.name, "key", "n").is_some());
}

#[test]
fn certificates_bring_their_snis() {
    let pair = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        object(json!({"cert": made.cert.pem(), "key": made.signing_key.serialize_pem()}))
    };
    let with = |names: Value| {
        let mut input = pair("a.test");
        input.insert("snis".to_owned(), names);
        Value::Object(input)
    };
    let mut world = World::default();
    let first = world.post("certificates", with(json!(["b.test", "a.test"]))).unwrap();
    assert_eq!(first["snis"], json!(["a.test", "b.test"]));
    assert_eq!(world.catalog.len("snis"), 2);
    let error = world.post("certificates", with(json!(["a.test"]))).unwrap_err();
    let id = first["id"].as_str().unwrap();
    let text = format!("schema violation (snis: a.test already associated with existing certificate '{id}')");
    assert_eq!((error.code, error.message), (2, text));
    let error = world.post("certificates", with(json!(["c.test", "c.test"]))).unwrap_err();
    assert_eq!(error.message, "schema violation (snis: c.test is duplicated)");
    let key = Key::Id(id.parse().unwrap());
    let kept = world.catalog.find("snis", "name", "b.test").unwrap().id;
    let row = world.patch("certificates", key.clone(), json!({"snis": ["b.test", "c.test"]})).unwrap();
    assert_eq!(row["snis"], json!(["b.test", "c.test"]));
    assert_eq!(world.catalog.find("snis", "name", "b.test").unwrap().id, kept);
    assert!(world.catalog.find("snis", "name", "a.test").is_none());
    let row = world.patch("certificates", key.clone(), json!({"tags": ["t"]})).unwrap();
    assert_eq!(row["snis"], json!(["b.test", "c.test"]));
    world.delete("certificates", key).unwrap();
    assert_eq!(world.catalog.len("snis"), 0);
}

#[test]
fn authorities_in_use_stay() {
    let entity = of("ca_certificates");
    let id = Uuid::from_u128(3);
    let row = Row::new(entity, id, &object(json!({"id": id.to_string(), "cert": "a certificate", "cert_digest": "d"})));
    let mut world = World::default();
    world.make(Change::Import(vec![Arc::new(row)])).unwrap();
    let service =
        world.post("services", json!({"name": "s", "protocol": "https", "host": "h", "ca_certificates": [id.to_string()]})).unwrap();
    let error = world.delete("ca_certificates", Key::Id(id)).unwrap_err();
    let other = service["id"].as_str().unwrap();
    assert_eq!((error.code, error.message), (19, format!("ca certificate {id} is still referenced by services (id = {other})")));
    world.delete("services", unique("name", "s")).unwrap();
    world.delete("ca_certificates", Key::Id(id)).unwrap();
}

/// Any sequence of changes keeps the invariants, which every plan sweeps; a refused one changes nothing.
#[test]
fn any_sequence_of_changes_keeps_the_invariants() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::default();
        let mut refused = 0;
        for _ in 0..150 {
            let kind_of_change = random.random_range(0..12);
            let mut name = |kind: &str| format!("{kind}{}", random.random_range(0..4));
            let (service, route, consumer) = (name("s"), name("r"), name("c"));
            let tags = json!([name("t"), name("t")]);
            let before = world.catalog.clone();
            let done = match kind_of_change {
                0 => world.post("services", json!({"name": service, "host": "h", "tags": tags})).map(drop),
                1 => world.put("services", unique("name", &service), json!({"host": route})).map(drop),
                2 => world.patch("services", unique("name", &service), json!({"name": name("s")})).map(drop),
                3 => world.delete("services", unique("name", &service)).map(drop),
                4 => world.post("routes", json!({"name": route, "paths": ["/"], "service": {"name": service}, "tags": tags})).map(drop),
                5 => world.patch("routes", unique("name", &route), json!({"service": {"name": service}})).map(drop),
                6 => world.delete("routes", unique("name", &route)).map(drop),
                7 => world.put("consumers", unique("username", &consumer), json!({"custom_id": name("i")})).map(drop),
                8 => world.delete("consumers", unique("username", &consumer)).map(drop),
                9 => world.post("plugins", json!({"name": "cors", "config": {}, "protocols": ["http"], "service": {"name": service}})).map(drop),
                10 => {
                    world.post("plugins", json!({"name": "cors", "config": {}, "protocols": ["http"], "route": {"name": route}, "consumer": {"username": consumer}})).map(drop)
                }
                _ => world
                    .make(Change::All(vec![
                        Change::Delete { entity: of("routes"), key: unique("name", &route), scope: None },
                        Change::Delete { entity: of("services"), key: unique("name", &service), scope: None },
                    ]))
                    .map(drop),
            };
            if done.is_err() {
                refused += 1;
                for entity in crate::model::ENTITIES.iter() {
                    assert_eq!(world.catalog.len(entity.name), before.len(entity.name), "seed {seed}");
                }
            }
        }
        assert!(refused > 0, "seed {seed} tried nothing that is refused");
    }
}
