//! Kong's answers to good and bad bodies, replayed at the level of schema validation.

use std::collections::BTreeSet;

use schema::{Context, Object, Value, Violations, validate};
use serde::Deserialize;
use troop::{model, plugins};

/// Answers that differ on purpose, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("route invalid regex", "a running Kong says it in nginx's words, as Troop does"),
    ("plugin proxy-cache dict", "there are no shared dictionaries whose absence could be reported"),
];

#[derive(Deserialize)]
struct Examples {
    admin_api: Vec<Example>,
}

#[derive(Deserialize)]
struct Example {
    case: String,
    entity: String,
    request: Object,
    status: u16,
    response: Object,
}

/// Fields whose values are made up by the gateway: `<auto>` in the file.
fn blank(row: &mut Object, expected: &Object) {
    for (name, value) in row.iter_mut() {
        let made_up = expected.get(name).is_some_and(|v| v == "<auto>");
        if made_up || (name == "key" && expected.get(name).is_some_and(|v| v.as_str().is_some_and(|v| v.starts_with("0000000")))) {
            assert!(!value.is_null(), "{name} is filled in");
            *value = expected[name].clone();
        }
    }
}

fn replay(example: &Example) -> Result<(), String> {
    let entity = model::entity(&example.entity).ok_or("no such entity")?;
    let choose = |_: &str, name: &str| plugins::plugin(name).map(|p| p.chosen());
    let context = Context { now: 1_700_000_000.0, choose: &choose, features: &[], transform: true };
    let (status, answer) = match validate::insert(entity, example.request.clone(), &context) {
        Ok(mut row) => {
            blank(&mut row, &example.response);
            (201, row)
        }
        Err(violations) => (400, envelope(violations)),
    };
    let sorted = |object: &Object| serde_json::to_string_pretty(&Value::Object(object.clone())).unwrap();
    if status == example.status && answer == example.response {
        return Ok(());
    }
    Err(format!("expected {} {}\ngot {status} {}", example.status, sorted(&example.response), sorted(&answer)))
}

fn envelope(violations: Violations) -> Object {
    Object::from_iter([
        ("code".to_owned(), 2.into()),
        ("name".to_owned(), "schema violation".into()),
        ("message".to_owned(), violations.message().into()),
        ("fields".to_owned(), violations.into()),
    ])
}

#[test]
fn kongs_answers() {
    let examples: Examples = serde_json::from_str(include_str!("validation-examples.json")).unwrap();
    let mut absent: BTreeSet<&str> = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut right = 0;
    for example in &examples.admin_api {
        let plugin = example.request.get("name").and_then(Value::as_str).filter(|_| example.entity == "plugins");
        let missing = match plugin {
            Some(name) if name != "nope" && plugins::plugin(name).is_none() => Some(name),
            _ if model::entity(&example.entity).is_none() => Some(example.entity.as_str()),
            _ => None,
        };
        if let Some(name) = missing {
            absent.insert(name);
            continue;
        }
        if EXCEPTIONS.iter().any(|(case, _)| *case == example.case) {
            continue;
        }
        match replay(example) {
            Ok(()) => right += 1,
            Err(difference) => wrong.push(format!("{}: {difference}", example.case)),
        }
    }
    assert!(wrong.is_empty(), "{} of {} answers differ\n\n{}", wrong.len(), right + wrong.len(), wrong.join("\n\n"));
    absent.retain(|name| !NOT_YET.contains(name));
    assert!(absent.is_empty(), "{right} answers replayed, none for {absent:?}");
}

/// Plugins and entities of the examples that are not built.
const NOT_YET: &[&str] =
    &["acme", "file-log", "http-log", "ldap-auth", "oauth2", "oauth2_credentials", "pre-function", "proxy-cache", "session"];
