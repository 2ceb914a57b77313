//! Documents as a whole.

use std::collections::BTreeMap;

use schema::Context;
use serde_json::{Value, json};

use super::{Document, export, load, parse};
use crate::declarative::DeclarativeError;
use crate::plugins;

fn context() -> Context<'static> {
    Context { now: 1_700_000_000.0, choose: &|_, name| plugins::plugin(name).map(|p| p.chosen()), ..Context::bare() }
}

fn refused(document: Value) -> DeclarativeError {
    load(document, &context()).expect_err("the document is wrong")
}

/// Ids by kind and name.
fn ids(document: Value) -> BTreeMap<String, String> {
    let rows = load(document, &context()).expect("the document is right");
    let name = |body: &Value| {
        ["name", "username", "key", "group", "target"].iter().find_map(|f| body[*f].as_str().map(str::to_owned)).unwrap_or_default()
    };
    rows.iter()
        .map(|row| {
            let body = Value::Object(row.object());
            (format!("{} {}", row.schema.name, name(&body)), row.id.to_string())
        })
        .collect()
}

#[test]
fn nesting_and_ids() {
    let document = json!({"_format_version": "3.0",
        "services": [{"name": "s1", "host": "h.test", "routes": [{"name": "r1", "paths": ["/1"]}]}],
        "consumers": [{"username": "bob", "acls": [{"group": "g1"}], "keyauth_credentials": [{"key": "k", "ttl": 60}]}],
        "upstreams": [{"name": "u1.test", "targets": [{"target": "127.0.0.1:9999"}]}],
    });
    let ids = ids(document);
    assert_eq!(ids["services s1"], "356ebaf8-b7af-5cba-99a1-f392e34730ab");
    assert_eq!(ids["routes r1"], "4726a05a-d550-537e-9fc3-a07c7a1188c7");
    assert_eq!(ids["consumers bob"], "def4f7d3-9863-5ad2-8fa9-c949bf26f55e");
    assert_eq!(ids["acls g1"], "b28f5018-192e-599c-ad0a-600321305d58");
    assert_eq!(ids["targets 127.0.0.1:9999"], "7fa14601-b8ae-50cc-9b31-2e19078f551e");
}

#[test]
fn parents_by_name_and_id() {
    let id = "11111111-1111-4111-8111-111111111111";
    let document = json!({"_format_version": "3.0", "services": [{"id": id, "name": "s", "host": "h"}], "routes": [
        {"name": "by-name", "paths": ["/1"], "service": "s"},
        {"name": "by-id", "paths": ["/2"], "service": id},
        {"name": "by-table", "paths": ["/3"], "service": {"id": id}},
    ]});
    for row in load(document, &context()).expect("right").iter().filter(|row| row.schema.name == "routes") {
        assert_eq!(row.object()["service"], json!({"id": id}));
    }
    let by_name = refused(json!({"_format_version": "3.0", "services": [{"name": "s", "host": "h"}],
        "routes": [{"name": "r", "paths": ["/1"], "service": {"name": "s"}}]}));
    assert_eq!(by_name.message(), "declarative config is invalid: {routes={{service={id=\"missing primary key\"}}}}");
}

#[test]
fn a_parent_written_where_it_is_implied() {
    let of = |service: &str| {
        json!({"_format_version": "3.0", "services": [
            {"name": "a", "host": "h", "routes": [{"name": "r", "paths": ["/"], "service": service}]},
            {"name": "b", "host": "h"},
        ]})
    };
    let rows = load(of("b"), &context()).expect("the parent it stands under wins");
    let service = |name: &str| rows.iter().find(|r| r.object()["name"] == name).expect("there").id.to_string();
    let route = rows.iter().find(|row| row.schema.name == "routes").expect("there");
    assert_eq!(route.object()["service"]["id"], service("a"));
    let message = refused(of("nope")).message();
    assert_eq!(message, "declarative config is invalid: {services={{routes={{service=\"value must be null\"}}}}}");
}

#[test]
fn everything_that_is_wrong_at_once() {
    let wrong = refused(json!({"_format_version": "3.0", "bogus": 1, "upstreams": "text", "services": [
        {"name": "ok", "host": "h.test"},
        {"name": "bad name", "host": "h.test", "port": 70000, "_comment": 5},
        {"name": "s3", "routes": [{"name": "r", "paths": ["nope"], "methods": ["get"]}, {"name": "r2", "service": {}}], "plugins": 5},
        "text",
    ], "routes": [{"name": "r4", "paths": ["/"], "service": "gone"}]}));
    assert_eq!(
        Value::Object(wrong.fields.clone()),
        json!({
            "bogus": "unknown field",
            "upstreams": "expected an array",
            "services": [
                null,
                {
                    "_comment": "expected a string",
                    "name": "invalid value 'bad name': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
                    "port": "value should be between 0 and 65535",
                },
                {
                    "host": "required field missing",
                    "plugins": "expected an array",
                    "routes": [
                        {"methods": ["invalid value: get"], "paths": ["should start with: / (fixed path) or ~/ (regex path)"]},
                        {
                            "@entity": ["must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'"],
                            "service": "value must be null",
                        },
                    ],
                },
                "expected a record",
            ],
            "routes": [{"service": {"id": "missing primary key"}}],
        })
    );
    let flat = wrong.flattened();
    assert_eq!(flat["flattened_errors"].as_array().map(Vec::len), Some(5));
    assert_eq!(
        flat["fields"],
        json!({"bogus": "unknown field", "upstreams": "expected an array", "services": [null, null, null, "expected a record"]})
    );
    let first = json!({"entity_type": "service", "entity_name": "bad name",
    "entity": {"name": "bad name", "host": "h.test", "port": 70000},
    "errors": [
        {"type": "field", "field": "_comment", "message": "expected a string"},
        {"type": "field", "field": "name",
         "message": "invalid value 'bad name': the only accepted ascii characters are alphanumerics or ., -, _, and ~"},
        {"type": "field", "field": "port", "message": "value should be between 0 and 65535"},
    ]});
    assert_eq!(flat["flattened_errors"][0], first);
}

#[test]
fn a_listing_for_people() {
    let wrong = refused(json!({"_format_version": "3.0", "services": [{"name": "a"}]}));
    assert_eq!(wrong.listing(), "in 'services':\n  - in entry 1 of 'services':\n    in 'host': required field missing");
}

#[test]
fn names_that_stand_twice_and_references_to_nothing() {
    let wrong = refused(json!({"_format_version": "3.0",
    "services": [{"name": "s", "host": "a"}, {"name": "s", "host": "b"}],
    "routes": [{"name": "r", "paths": ["/"], "service": "nope"}, {"paths": ["/"], "service": "nope"}],
    "consumers": [
        {"username": "a", "custom_id": "c", "keyauth_credentials": [{"key": "k"}]},
        {"username": "b", "custom_id": "c", "keyauth_credentials": [{"key": "k"}]},
    ]}));
    let reference = "invalid reference 'service: nope' (no such entry in 'services')";
    assert_eq!(
        Value::Object(wrong.fields.clone()),
        json!({
            "services": [null, "uniqueness violation: 'services' entity with name set to 's' already declared"],
            "routes": {"r": [reference], "2": [reference]},
            "consumers": [null, "uniqueness violation: 'consumers' entity with custom_id set to 'c' already declared"],
        })
    );
    let nested = refused(json!({"_format_version": "3.0", "consumers": [
        {"username": "a", "keyauth_credentials": [{"key": "k"}]}, {"username": "b", "keyauth_credentials": [{"key": "k"}]},
    ]}));
    assert_eq!(
        nested.message(),
        "declarative config is invalid: {consumers={[2]={keyauth_credentials={\"uniqueness violation: 'keyauth_credentials' \
         entity with key set to 'k' already declared\"}}}}"
    );
}

#[test]
fn the_format_and_old_paths() {
    let wrong = |version: Value| refused(json!({ "_format_version": version })).fields["_format_version"].clone();
    assert_eq!(wrong(json!("9")), "expected one of: 1.1, 2.1, 3.0");
    assert_eq!(wrong(json!(3.0)), "expected a string");
    assert_eq!(wrong(json!(null)), "required field missing");
    let paths = |version: &str| {
        let routes = json!([{"name": "r", "paths": ["/\\d+", "/plain"]}]);
        let rows = load(json!({"_format_version": version, "routes": routes}), &context()).expect("right");
        rows[0].object()["paths"].clone()
    };
    assert_eq!(paths("2.1"), json!(["~/\\d+", "/plain"]));
    assert_eq!(paths("3.0"), json!(["/\\d+", "/plain"]));
    let twice = refused(json!({"_format_version": "2.1", "routes": [{"name": "r", "paths": ["~/\\d+"]}]}));
    assert_eq!(twice.fields["routes"], json!([{"paths": ["should start with: / (fixed path) or ~/ (regex path)"]}]));
}

#[test]
fn text_of_both_kinds() {
    let rows = |text: &str| parse(text, &context()).map(|d: Document| d.rows.len());
    assert_eq!(rows(r#"{"_format_version": "3.0", "services": [{"name": "s", "host": "h"}]}"#).ok(), Some(1));
    assert_eq!(rows("_format_version: '3.0'\nservices:\n- name: s\n  host: h\n").ok(), Some(1));
    let message = |text: &str| rows(text).expect_err("wrong").message();
    let unreadable = "declarative config is invalid: {error=\"failed parsing declarative configuration: ";
    assert_eq!(message("hello"), format!("{unreadable}expected an object\"}}"));
    assert_eq!(message("a: [1, 2"), format!("{unreadable}1:8: did not find expected ',' or ']'\"}}"));
    let twice = "_format_version: '3.0'\nservices: [{name: a, host: h}]\nservices: [{name: b, host: h}]\n";
    let document = parse(twice, &context()).expect("joined");
    assert_eq!((document.rows.len(), document.warnings.len()), (2, 1));
}

#[test]
fn passwords_are_hashed_once() {
    let consumers = json!([{"username": "bob", "basicauth_credentials": [{"username": "bob", "password": "pw"}]}]);
    let document = |transform: bool| json!({"_format_version": "3.0", "_transform": transform, "consumers": consumers});
    let password = |document: Value| {
        let rows = load(document, &context()).expect("right");
        rows.iter().find_map(|row| row.object().get("password").cloned()).expect("there")
    };
    assert_eq!(password(document(false)), "pw");
    let hashed = crate::model::password_hash("pw", "def4f7d3-9863-5ad2-8fa9-c949bf26f55e");
    assert_eq!(password(document(true)), hashed.as_str());
}

#[test]
fn an_export_reads_back_the_same() {
    let cert = include_str!("../../tests/golden/tls/ca.crt");
    let document = json!({"_format_version": "3.0",
        "services": [{"name": "s", "url": "http://h.test:81/p", "tags": ["a b", "yes", "1", "é", "quote'd"], "routes": [
            {"name": "r", "paths": ["/x", "~/a: #b\\d"], "headers": {"x-a": ["1", "true"]}}]}],
        "ca_certificates": [{"cert": cert}],
        "consumers": [{"username": "tab\there", "basicauth_credentials": [{"username": "line\n break ", "password": "p"}]}],
        "upstreams": [{"name": "u.test", "targets": [{"target": "h:1"}]}],
    });
    let rows = load(document, &context()).expect("right");
    let text = export(&rows);
    assert!(text.starts_with("_format_version: '3.0'\n_transform: false\n"));
    let again = parse(&text, &context()).unwrap_or_else(|e| panic!("{}\n{text}", e.listing()));
    assert_eq!(again.rows.len(), rows.len());
    for (row, again) in rows.iter().zip(&again.rows) {
        assert_eq!(row.object(), again.object());
    }
}
