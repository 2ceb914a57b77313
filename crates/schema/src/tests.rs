//! An entity of every kind of field, written, patched and filled from forms.

#![allow(dead_code, reason = "the fields are there for their declarations")]

use std::collections::BTreeMap;

use schema::check::Match;
use schema::types::{HeaderName, Id, Parent, Set, Tags};
use schema::{Check, Chosen, Context, Entity, EntityType, Field, FieldType, Object, Record, RecordType, Value, json};
use schema::{describe, infer, validate};
use serde::Deserialize;

#[derive(Debug, Deserialize, Entity)]
#[entity(name = "things", endpoint_key = "name", installed("kind", "thing '%s' is not installed"), transform(&["secret"], shout))]
#[record(
    expand(String::field().named("address").nullable(), expand_address),
    check(Check::at_least_one_of(&["name", "secret"])),
    check(Check::conditional("config.policy", Match::eq("redis"), "config.redis.host", Match::Required)),
)]
struct Thing {
    #[field(auto)]
    id: Id,
    #[field(auto, timestamp)]
    created_at: i64,
    #[field(auto, timestamp)]
    updated_at: f64,
    #[field(default = "plain")]
    kind: String,
    name: Option<String>,
    #[field(referenceable, len_min(2))]
    secret: Option<String>,
    host: Option<String>,
    #[field(default = 80, between(0, 65535))]
    port: u16,
    #[field(optional, default = 5)]
    retries: u32,
    #[field(immutable)]
    place: Option<String>,
    #[field(default = [1])]
    numbers: Set<i64>,
    #[field(keys(|_| HeaderName::field()))]
    headers: Option<BTreeMap<String, Vec<String>>>,
    labels: Option<BTreeMap<String, String>>,
    #[field(parent("owners"))]
    owner: Option<Parent>,
    #[field(feature("speed"), default = 1)]
    #[serde(default)]
    speed: u32,
    #[field(sparse)]
    hint: Option<String>,
    #[field(chosen)]
    config: Value,
    tags: Option<Tags>,
}

#[derive(Debug, Deserialize, Record)]
#[record(alias(String::field().named("redis_host").nullable(), &["redis", "host"]))]
struct Plain {
    #[field(default = "local", one_of(&["local", "redis"]))]
    policy: Option<String>,
    redis: Redis,
    extra: Option<Extra>,
}

#[derive(Debug, Deserialize, Record)]
struct Redis {
    host: Option<String>,
    #[field(default = 6379)]
    port: Option<u16>,
}

#[derive(Debug, Deserialize, Record)]
struct Extra {
    note: Option<String>,
}

fn expand_address(value: &Value) -> Object {
    let (host, port) = value.as_str().and_then(|v| v.split_once(':')).unwrap_or_default();
    Object::from_iter([("host".to_owned(), json!(host)), ("port".to_owned(), json!(port.parse::<u64>().ok()))])
}

fn shout(row: &mut Object) -> Result<(), schema::Violations> {
    if let Some(Value::String(secret)) = row.get_mut("secret") {
        *secret = secret.to_uppercase();
    }
    Ok(())
}

fn chosen(_: &str, name: &str) -> Option<Chosen> {
    let owner = Field::foreign("owners").named("owner").equals(Value::Null);
    match name {
        "plain" => Some(Chosen { config: Some(Plain::record()), ..Chosen::default() }),
        "lonely" => Some(Chosen { config: Some(Plain::record()), fields: vec![owner], checks: Vec::new() }),
        _ => None,
    }
}

fn context() -> Context<'static> {
    Context { now: 1000.5, choose: &chosen, features: &[], transform: true }
}

fn object(value: Value) -> Object {
    value.as_object().expect("a table").clone()
}

fn insert(input: Value) -> Result<Value, String> {
    validate::insert(Thing::entity(), object(input), &context()).map(Value::Object).map_err(|v| v.message())
}

fn update(row: &Value, patch: Value) -> Result<Value, String> {
    let existing = object(row.clone());
    validate::update(Thing::entity(), object(patch), &existing, &context()).map(Value::Object).map_err(|v| v.message())
}

#[test]
fn a_new_row_is_complete() {
    let mut row = insert(json!({"name": "a", "numbers": [2, 2.0, 3]})).expect("fine");
    assert_eq!(row["id"].as_str().map(str::len), Some(36));
    row["id"] = json!("x");
    assert_eq!(
        row,
        json!({
            "id": "x", "created_at": 1000, "updated_at": 1000.5, "kind": "plain", "name": "a", "secret": null, "host": null,
            "port": 80, "retries": 5, "place": null, "numbers": [2, 3], "headers": null, "labels": null, "owner": null,
            "config": {"policy": "local", "redis": {"host": null, "port": 6379}, "redis_host": null, "extra": null}, "tags": null,
        })
    );
    let with_speed = Context { features: &["speed"], ..context() };
    let row = validate::insert(Thing::entity(), object(json!({"name": "a"})), &with_speed).expect("fine");
    assert_eq!(row["speed"], 1);
}

#[test]
fn other_spellings() {
    let row = insert(json!({"name": "a", "address": "h:81", "config": {"redis_host": "r"}})).expect("fine");
    assert_eq!((&row["host"], &row["port"]), (&json!("h"), &json!(81)));
    assert_eq!((&row["config"]["redis"]["host"], &row["config"]["redis_host"]), (&json!("r"), &json!("r")));
    let both = insert(json!({"name": "a", "config": {"redis_host": "r", "redis": {"host": "s"}}}));
    assert_eq!(
        both.expect_err("they differ"),
        "schema violation (config.redis_host: both deprecated and new field are used but their values mismatch: redis_host = r vs \
         redis.host = s)"
    );
    let row = update(&row, json!({"config": {"redis_host": "t"}})).expect("fine");
    assert_eq!((&row["config"]["redis"]["host"], &row["config"]["redis_host"]), (&json!("t"), &json!("t")));
    assert_eq!(insert(json!({"name": "a", "address": 5})).expect_err("no text"), "schema violation (address: expected a string)");
}

#[test]
fn everything_wrong_at_once() {
    let wrong = insert(json!({"port": 70000, "numbers": [1, "x"], "headers": {"a b": []}, "config": {"policy": "x", "y": 1}, "z": 1,
        "owner": {"id": "x"}, "kind": null}));
    assert_eq!(wrong.expect_err("no kind"), "schema violation (kind: required field missing)");
    let wrong = insert(json!({"port": 70000, "numbers": [1, "x"], "headers": {"a b": []}, "config": {"policy": "x", "y": 1}, "z": 1,
        "owner": {"id": "x"}, "retries": 1.5}));
    assert_eq!(
        wrong.expect_err("much is wrong"),
        "9 schema violations (at least one of these fields must be non-empty: 'name', 'secret'; config.policy: expected one of: local, \
         redis; config.y: unknown field; headers: bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-'; \
         numbers.2: expected an integer; owner.id: expected a valid UUID; port: value should be between 0 and 65535; retries: expected \
         an integer; z: unknown field)"
    );
    let wrong = insert(json!({"name": "a", "config": {"policy": "redis"}}));
    assert_eq!(
        wrong.expect_err("no host"),
        "2 schema violations (failed conditional validation given value of field 'config.policy'; config.redis: {\n  host = \
         \"required field missing\"\n})"
    );
    assert_eq!(insert(json!({"name": "a", "kind": "x"})).expect_err("x"), "schema violation (kind: thing 'x' is not installed)");
    let id = "11111111-1111-4111-8111-111111111111";
    let lonely = insert(json!({"name": "a", "kind": "lonely", "owner": {"id": id}}));
    assert_eq!(lonely.expect_err("no owner"), "schema violation (owner: value must be null)");
    let owned = insert(json!({"name": "a", "owner": {"id": id, "name": "n"}})).expect("fine");
    assert_eq!(owned["owner"], json!({"id": id}));
}

#[test]
fn patches() {
    let row = insert(json!({"name": "a", "secret": "pw", "place": "p", "headers": {"a": ["1"], "b": []}})).expect("fine");
    assert_eq!(row["secret"], "PW");
    let later = Context { now: 2000.0, ..context() };
    let patch = object(json!({"headers": {"c": []}, "retries": null, "config": {"redis": {"port": null}}}));
    let row = Value::Object(validate::update(Thing::entity(), patch, &object(row), &later).expect("fine"));
    assert_eq!(row["headers"], json!({"c": []}), "maps are replaced");
    assert_eq!(row["retries"], json!(null), "null stays null");
    assert_eq!(row["config"]["redis"], json!({"host": null, "port": null}), "records are merged");
    assert_eq!((&row["created_at"], &row["updated_at"]), (&json!(1000), &json!(2000)));
    assert_eq!(row["secret"], "PW", "what was not written is not transformed");
    assert_eq!(update(&row, json!({"place": "q"})).expect_err("fixed"), "schema violation (place: immutable field cannot be updated)");
    assert!(update(&row, json!({"place": "p"})).is_ok());
    assert_eq!(update(&row, json!({"port": null})).expect_err("needed"), "schema violation (port: required field missing)");
    let emptied = update(&row, json!({"name": null, "secret": null}));
    assert_eq!(emptied.expect_err("one of them"), "schema violation (at least one of these fields must be non-empty: 'name', 'secret')");
    let thing: Thing = schema::read(Thing::record(), row).expect("fits");
    assert_eq!((thing.retries, thing.port), (5, 80));
}

#[test]
fn references_are_not_looked_into() {
    assert!(insert(json!({"secret": "{vault://env/x}"})).is_ok());
    assert_eq!(insert(json!({"secret": "x"})).expect_err("short"), "schema violation (secret: length must be at least 2)");
}

#[test]
fn forms() {
    let form = json!({"kind": "plain", "port": "81", "retries": "x", "name": "", "numbers": "7", "tags": {"2": "b", "1": "a"},
        "headers": {"x-a": "1"}, "labels": {"service": {"name": "s", "version": "1"}}, "config": {"redis": {"port": "7000"}}});
    assert_eq!(
        Value::Object(infer::infer(Thing::entity(), object(form), None, &context())),
        json!({"kind": "plain", "port": 81, "retries": "x", "name": null, "numbers": [7], "tags": ["a", "b"],
            "headers": {"x-a": ["1"]}, "labels": {"service.name": "s", "service.version": "1"}, "config": {"redis": {"port": 7000}}})
    );
    let row = object(insert(json!({"name": "a"})).expect("fine"));
    let patch = object(json!({"config": {"redis": {"port": "1"}}}));
    let typed = infer::infer(Thing::entity(), patch, Some(&row), &context());
    assert_eq!(typed["config"]["redis"]["port"], 1, "the row says which configuration it is");
}

#[test]
fn descriptions() {
    let described = describe::entity(Thing::entity(), &context());
    let field = |name: &str| {
        let fields = described["fields"].as_array().expect("a list");
        fields.iter().find_map(|f| f.get(name)).cloned().unwrap_or_default()
    };
    assert_eq!(field("port"), json!({"type": "integer", "required": true, "default": 80, "between": [0, 65535]}));
    assert_eq!(field("owner"), json!({"type": "foreign", "reference": "owners"}));
    assert_eq!(field("speed"), Value::Null, "the node lacks the feature");
    assert_eq!(described["entity_checks"][0], json!({"at_least_one_of": ["name", "secret"]}));
    let plain = describe::chosen(&chosen("things", "plain").expect("installed"), "plain");
    assert_eq!(
        plain["fields"][0]["config"]["shorthand_fields"][0]["redis_host"]["deprecation"],
        json!({
            "message": "plain: config.redis_host is deprecated, please use config.redis.host instead",
            "removal_in_version": "4.0",
            "replaced_with": [{"path": ["redis", "host"]}],
        })
    );
}
