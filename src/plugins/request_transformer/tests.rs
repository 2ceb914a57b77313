use serde_json::{Value, json};

use super::*;
use crate::http::Body;
use crate::plugin::exchange::Captures;
use crate::plugin::testing::{exchange, exchange_with_body, plugin, refused, run, validated, values};

fn transform(config: Value, x: &mut Exchange) -> Flow {
    let plugin: RequestTransformer = plugin(config);
    run(Plugin::access(&plugin, x))
}

fn body(x: &Exchange) -> &str {
    match &x.request.body {
        Body::Empty => "",
        Body::Bytes(bytes) => std::str::from_utf8(bytes).unwrap(),
        Body::Stream(_) => panic!("the body is a stream"),
    }
}

#[test]
fn headers_are_removed_renamed_replaced_added_and_appended() {
    let config = json!({
        "remove": {"headers": ["X-Gone", "authorization", "Host", "content-length"]},
        "rename": {"headers": ["X-A:X-B", "X-C:X-D"]},
        "replace": {"headers": ["X-Rep:new", "X-Not-There:new"]},
        "add": {"headers": ["X-New:1", "X-New:2", "X-There:no", "x-plain:a:b:c"]},
        "append": {"headers": ["X-App:2", "X-App2:1"]}
    });
    let sent = [
        ("Host", "a.test"),
        ("X-Gone", "1"),
        ("x-gone", "2"),
        ("Authorization", "a"),
        ("X-A", "1"),
        ("X-A", "2"),
        ("X-B", "own"),
        ("X-Rep", "1"),
        ("X-Rep", "2"),
        ("X-There", "yes"),
        ("X-App", "1"),
        ("Content-Length", "0"),
    ];
    let mut x = exchange("GET", "/", &sent);
    transform(config, &mut x).unwrap();
    let headers = x.request.headers.iter().map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v)));
    let mut headers: Vec<_> = headers.map(|(n, v)| format!("{}: {v}", n.to_lowercase())).collect();
    headers.sort();
    assert_eq!(
        headers,
        [
            "content-length: 0",
            "host: a.test",
            "x-app2: 1",
            "x-app: 1",
            "x-app: 2",
            "x-b: 1",
            "x-b: 2",
            "x-new: 1",
            "x-plain: a:b:c",
            "x-rep: new",
            "x-there: yes"
        ]
    );
    assert_eq!(x.upstream.host_header, None);
}

#[test]
fn the_host_can_be_replaced() {
    let mut x = exchange("GET", "/", &[("Host", "a.test")]);
    transform(json!({"replace": {"headers": ["Host:b.test"]}}), &mut x).unwrap();
    assert_eq!(x.upstream.host_header.as_deref(), Some("b.test"));
}

#[test]
fn templates_see_the_request_as_it_was() {
    let config = json!({
        "remove": {"headers": ["x-in"], "querystring": ["q"]},
        "replace": {"uri": "/users/$(uri_captures['user'])/$(uri_captures[2])"},
        "add": {"headers": ["x-h:$(headers['x-in'])", "x-q:$(query_params.q)", "x-none:[$(headers.none)]"], "querystring": ["h:$(headers.x_in)"]}
    });
    let mut x = exchange("GET", "/u/bob/42?q=7", &[("X-In", "in")]);
    x.captures = Captures {
        whole: None,
        numbered: vec![Some("bob".to_owned()), Some("42".to_owned())],
        named: vec![("user".to_owned(), "bob".to_owned())],
    };
    transform(config, &mut x).unwrap();
    assert_eq!(x.upstream.target, "/users/bob/42?h=in");
    assert_eq!(["x-h", "x-q", "x-none"].map(|name| values(&x.request.headers, name).concat()), ["in", "7", "[]"]);
}

#[test]
fn a_template_cannot_bring_in_a_header_line() {
    let mut x = exchange("GET", "/?q=a%0D%0AX-Evil:%201%00", &[]);
    transform(json!({"add": {"headers": ["x-q:$(query_params.q)"]}}), &mut x).unwrap();
    assert_eq!(values(&x.request.headers, "x-q"), ["a%0D%0AX-Evil: 1%00"]);
}

#[test]
fn a_template_that_fails_answers_500_and_changes_nothing() {
    for config in
        [json!({"remove": {"headers": ["x-a"]}, "add": {"headers": ["x-bad:$(no.such.thing)"]}}), json!({"replace": {"uri": "relative"}})]
    {
        let mut x = exchange("GET", "/p", &[("X-A", "1")]);
        let reply = transform(config, &mut x).unwrap_err();
        assert_eq!((reply.status, x.upstream.target.as_str()), (500, "/p"));
    }
}

#[test]
fn queries_are_changed_and_sorted() {
    let config = json!({
        "replace": {"uri": "/out", "querystring": ["absent:1"]},
        "rename": {"querystring": ["a:b", "none:x"]},
        "remove": {"querystring": ["c"]},
        "add": {"querystring": ["d:1", "d:2", "e:$(headers['x-e'])"]},
        "append": {"querystring": ["f:1", "f:2"]}
    });
    let mut x = exchange("GET", "/in/rest?a=1&a=2&c&d=0&f=0", &[("X-E", "e e")]);
    transform(config.clone(), &mut x).unwrap();
    assert_eq!(x.upstream.target, "/out?b=1&b=2&d=0&e=e%20e&f=0&f=1&f=2");
    let mut x = exchange("GET", "/in", &[]);
    transform(config, &mut x).unwrap();
    assert_eq!(x.upstream.target, "/out?d=1&e=&f=1&f=2");
    let mut x = exchange("GET", "/in?z=%7e&flag", &[]);
    transform(json!({"replace": {"uri": "/with?query=1 /%41"}}), &mut x).unwrap();
    assert_eq!(x.upstream.target, "/with?query=1%20/%41?z=%7e&flag");
    let mut x = exchange("GET", "/in?flag&x=1", &[]);
    transform(json!({"append": {"querystring": ["x:2", "flag:1"]}}), &mut x).unwrap();
    assert_eq!(x.upstream.target, "/in?flag=1&x=1&x=2");
}

fn body_operations() -> Value {
    json!({
        "add": {"body": ["n:1", "t:true", "s:x y"]},
        "remove": {"body": ["gone"]},
        "rename": {"body": ["old:new"]},
        "replace": {"body": ["rep:9"]},
        "append": {"body": ["list:z"]}
    })
}

#[test]
fn bodies_are_changed_by_their_type() {
    let multipart = "--B\r\nContent-Disposition: form-data; name=\"old\"\r\n\r\no\r\n--B\r\nContent-Disposition: form-data; name=\"gone\"\r\n\r\ng\r\n--B--\r\n";
    let part = |name: &str, value: &str| format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let parts = [part("new", "o"), part("n", "1"), part("t", "true"), part("s", "x y")].concat() + "--B--\r\n";
    let added = r#"{"list":["z"],"n":"1","s":"x y","t":"true"}"#;
    for (content_type, before, after) in [
        (
            "application/json",
            r#"{"gone":1,"old":"o","rep":1,"list":"a","keep":{"a":[1]}}"#,
            r#"{"keep":{"a":[1]},"list":["a","z"],"n":"1","new":"o","rep":"9","s":"x y","t":"true"}"#,
        ),
        ("APPLICATION/JSON", "{}", added),
        ("application/json", "", added),
        ("application/json", "[1]", "[1]"),
        ("application/json", "{", "{"),
        ("application/x-www-form-urlencoded", "gone=1&old=o&rep=1&list=a", "list=a&list=z&n=1&new=o&rep=9&s=x%20y&t=true"),
        ("application/x-www-form-urlencoded", "", "list=z&n=1&s=x%20y&t=true"),
        ("multipart/form-data; boundary=B", multipart, &parts),
        ("text/plain", "gone=1", "gone=1"),
    ] {
        let mut x = exchange_with_body("POST", "/p", &[("Content-Type", content_type)], before);
        transform(body_operations(), &mut x).unwrap();
        assert_eq!(body(&x), after, "{content_type} {before}");
        assert_eq!(values(&x.request.headers, "content-length"), [after.len().to_string()], "{content_type} {before}");
    }
}

#[test]
fn a_method_without_a_body_gets_the_form_as_arguments() {
    let mut config = body_operations();
    config["http_method"] = json!("GET");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let mut x = exchange_with_body("POST", "/p?q=1", &form, "a=1&b=2");
    transform(config, &mut x).unwrap();
    assert_eq!((x.request.method.as_str(), x.upstream.target.as_str()), ("GET", "/p?a=1&b=2&q=1"));
    assert_eq!(body(&x), "a=1&b=2&list=z&n=1&s=x%20y&t=true");
}

#[test]
fn what_is_not_asked_for_stays_byte_for_byte() {
    let mut x = exchange_with_body("POST", "/p?b=%7e&&a", &[("Content-Type", "application/json")], "{ }");
    transform(json!({"add": {"headers": ["x-a:1"]}}), &mut x).unwrap();
    assert_eq!((x.upstream.target.as_str(), body(&x)), ("/p?b=%7e&&a", "{ }"));
}

#[test]
fn refuses_configurations_in_kongs_words() {
    let refused = |config| refused::<RequestTransformer>(config)["config"].take();
    assert_eq!(refused(json!({"http_method": "get"})), json!({"http_method": "invalid value: get"}));
    assert_eq!(refused(json!({"add": {"headers": ["noColon"]}})), json!({"add": {"headers": ["invalid value: noColon"]}}));
    assert_eq!(refused(json!({"add": {"headers": ["bad header:1"]}})), json!({"add": {"headers": ["'bad header' is not a valid header"]}}));
    assert_eq!(refused(json!({"rename": {"headers": ["a:b c"]}})), json!({"rename": {"headers": ["'b c' is not a valid header"]}}));
    assert_eq!(refused(json!({"remove": {"headers": ["b c"]}})), json!({"remove": {"headers": ["'b c' is not a valid header"]}}));
    assert_eq!(refused(json!({"add": {"body": ["a"]}})), json!({"add": {"body": ["key 'a' has no value"]}}));
    assert_eq!(
        refused(json!({"add": {"querystring": ["ok:1", "a:$(1 +)"]}})),
        json!({"add": {"querystring": [null, "value '$(1 +)' is not in supported format, error:unexpected symbol near '<eof>'"]}})
    );
    assert!(validated::<RequestTransformer>(json!({"add": {"headers": ["a:$(foo"]}, "replace": {"uri": "/x/$(nope"}})).is_ok());
    assert_eq!(
        validated::<RequestTransformer>(json!({})).unwrap()["replace"],
        json!({"body": [], "headers": [], "querystring": [], "uri": null})
    );
}
