//! JSON, forms and multipart bodies, and what is refused.

use serde_json::json;

use super::client::send;
use super::node::TestNode;

#[test]
fn media_types() {
    let node = TestNode::start();
    let post = |media_type: &[(&str, &str)], body: &str| send(node.admin, "POST", "/services", media_type, body.as_bytes());
    for media_type in [&[][..], &[("content-type", "text/plain")], &[("content-type", "text/yaml")]] {
        let answer = post(media_type, "{}");
        assert_eq!(answer.status, 415);
        assert_eq!(answer.header("content-type"), Some("text/html; charset=UTF-8"));
    }
    let twice = [("content-type", "application/json"), ("content-type", "application/json")];
    assert_eq!(post(&twice, "{}").expect(400), json!({"message": "Multiple Content-Type headers not allowed"}));
    assert_eq!(post(&twice[..1], "{nope").expect(400), json!({"message": "Cannot parse JSON body"}));
    assert_eq!(post(&[], "").expect(400)["fields"], json!({"host": "required field missing"}));
    let answer = post(&[("content-type", "application/json; charset=utf-8")], r#"{"host":"h"}"#);
    assert_eq!(answer.expect(201)["host"], "h");
}

#[test]
fn forms() {
    let node = TestNode::start();
    let service =
        node.form("POST", "/services", "name=s&url=https%3A%2F%2Fexample.test&retries=3&tags[]=a&tags[]=b&enabled=true").expect(201);
    assert_eq!(
        (&service["host"], &service["port"], &service["retries"], &service["tags"], &service["enabled"]),
        (&json!("example.test"), &json!(443), &json!(3), &json!(["a", "b"]), &json!(true))
    );
    let route =
        node.form("POST", "/routes", "paths=/a&methods[1]=GET&methods[2]=POST&service.name=s&headers.x-a[]=1&headers[x-b][]=2").expect(201);
    assert_eq!(route["paths"], json!(["/a"]));
    assert_eq!(route["methods"], json!(["GET", "POST"]));
    assert_eq!(route["service"], json!({"id": service["id"]}));
    assert_eq!(route["headers"], json!({"x-a": ["1"], "x-b": ["2"]}));
    let patched = node.form("PATCH", "/services/s", "path=&retries=1").expect(200);
    assert_eq!((&patched["path"], &patched["retries"]), (&json!(null), &json!(1)));
    let many = vec!["tags=a"; 1001].join("&");
    assert_eq!(node.form("POST", "/services", &many).expect(400), json!({"message": "Too many arguments"}));
    assert_eq!(node.get(&format!("/services?{many}")).expect(400), json!({"message": "Too many arguments"}));
}

#[test]
fn a_json_body_is_taken_as_it_is() {
    let node = TestNode::start();
    let answer = node.post("/services", json!({"host": "h", "port": "80"})).expect(400);
    assert_eq!(answer["fields"], json!({"port": "expected an integer"}));
}

#[test]
fn multipart() {
    let node = TestNode::start();
    let part = |name: &str, value: &str| format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let body = format!("{}{}{}--XX--\r\n", part("name", "s"), part("host", "h.test"), part("port", "81"));
    let media_type = [("content-type", "multipart/form-data; boundary=XX")];
    let service = send(node.admin, "POST", "/services", &media_type, body.as_bytes()).expect(201);
    assert_eq!((&service["host"], &service["port"]), (&json!("h.test"), &json!(81)));
    assert_eq!(send(node.admin, "POST", "/services", &media_type, b"junk").status, 400);
}
