//! Certificates and the names they are for.

use serde_json::{Value, json};

use super::node::TestNode;

fn pair() -> Value {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("a certificate");
    json!({"cert": made.cert.pem(), "key": made.signing_key.serialize_pem()})
}

#[test]
fn certificates_answer_to_the_names_of_their_snis() {
    let node = TestNode::start();
    let mut body = pair();
    body["snis"] = json!(["b.test", "a.test"]);
    let made = node.post("/certificates", body).expect(201);
    assert_eq!(made["snis"], json!(["a.test", "b.test"]));
    assert_eq!(node.get("/certificates/b.test").expect(200), made);
    assert_eq!(node.get("/certificates").expect(200)["data"], json!([made]));
    assert_eq!(node.get("/certificates/a.test/snis").expect(200)["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(node.get("/certificates/a.test/snis/b.test").expect(200)["name"], "b.test");
    assert_eq!(node.get("/certificates/none.test").expect(404), json!({"message": "SNI not found"}));
    assert_eq!(node.send("PATCH", "/certificates/none.test", json!({})).expect(404), json!({"message": "SNI not found"}));
    let patched = node.send("PATCH", "/certificates/a.test", json!({"snis": ["c.test"], "tags": ["t"]})).expect(200);
    assert_eq!((&patched["snis"], &patched["tags"]), (&json!(["c.test"]), &json!(["t"])));
    assert_eq!(node.get("/certificates/a.test").status, 404);
    let put = node.send("PUT", "/certificates/new.test", pair()).expect(200);
    assert_eq!(put["snis"], json!(["new.test"]));
    assert_eq!(node.delete("/certificates/new.test").status, 204);
    assert_eq!(node.get("/snis/new.test").status, 404);
    assert_eq!(node.get("/snis/c.test").expect(200)["certificate"], json!({"id": made["id"]}));
}
