//! Entities whose checks look into certificates and keys, and those that change what is written.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use schema::{Context, Object, Value, json, validate};

use super::entity;

const CONSUMER: &str = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";

fn insert(kind: &str, input: Value) -> Result<Object, String> {
    let context = Context { now: 1_000_000_000.0, ..Context::bare() };
    let input = input.as_object().expect("a table").clone();
    validate::insert(entity(kind).expect("an entity"), input, &context).map_err(|wrong| wrong.message())
}

/// A certificate and its key.
fn pair(algorithm: &'static rcgen::SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> (String, KeyPair) {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).expect("a good name");
    change(&mut params);
    (params.self_signed(&key).expect("signed").pem(), key)
}

#[test]
fn certificates() {
    let (cert, key) = pair(&PKCS_ECDSA_P256_SHA256, |_| {});
    let (other, other_key) = pair(&PKCS_ED25519, |_| {});
    let (key, other_key) = (key.serialize_pem(), other_key.serialize_pem());
    assert!(insert("certificates", json!({"cert": cert, "key": key, "cert_alt": other, "key_alt": other_key})).is_ok());
    let refused = |input: Value| insert("certificates", input).expect_err("refused");
    assert_eq!(refused(json!({"cert": cert, "key": other_key})), "schema violation (certificate does not match key)");
    assert_eq!(
        refused(json!({"cert": cert, "key": key, "cert_alt": other})),
        "schema violation (all or none of these fields must be set: 'cert_alt', 'key_alt')"
    );
    let same_type = refused(json!({"cert": cert, "key": key, "cert_alt": cert, "key_alt": key}));
    assert!(same_type.contains("need to have different type"), "{same_type}");
    let nonsense = refused(json!({"cert": "x", "key": "y"}));
    assert!(nonsense.contains("cert: invalid certificate: ") && nonsense.contains("key: invalid key: "), "{nonsense}");
    assert!(insert("certificates", json!({"cert": "{vault://env/cert}", "key": "{vault://env/key}"})).is_ok());
}

#[test]
fn authorities() {
    let (leaf, _) = pair(&PKCS_ECDSA_P256_SHA256, |_| {});
    let (authority, _) = pair(&PKCS_ECDSA_P256_SHA256, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let (expired, _) = pair(&PKCS_ECDSA_P256_SHA256, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(2000, 1, 1);
    });
    let row = insert("ca_certificates", json!({"cert": authority})).expect("an authority");
    assert_eq!(row["cert_digest"].as_str().map(str::len), Some(64));
    let refused = |cert: &str| insert("ca_certificates", json!({"cert": cert})).expect_err("refused");
    assert!(refused(&leaf).contains("missing the \"CA\" basic constraint"));
    assert!(refused(&expired).contains("certificate expired"));
    assert!(refused(&format!("{authority}{authority}")).contains("please submit only one certificate at a time"));
}

#[test]
fn keys() {
    let key = KeyPair::generate().expect("a key");
    let (private, public) = (key.serialize_pem(), key.public_key_pem());
    assert!(insert("keys", json!({"kid": "1", "pem": {"private_key": private, "public_key": public}})).is_ok());
    let other = KeyPair::generate().expect("a key").public_key_pem();
    let refused = |input: Value| insert("keys", input).expect_err("refused");
    assert_eq!(
        refused(json!({"kid": "1", "pem": {"private_key": private, "public_key": other}})),
        "schema violation (pem: public key does not match private key)"
    );
    assert_eq!(refused(json!({"kid": "1", "pem": {"public_key": "x"}})), "schema violation (pem: could not load public key)");
    assert_eq!(refused(json!({"kid": "1", "jwk": "{"})), "schema violation (could not json decode jwk string)");
    assert_eq!(
        refused(json!({"kid": "1", "jwk": r#"{"kid":"1","kty":"RSA"}"#})),
        "schema violation (could not load JWK, likely not a valid key)"
    );
    assert!(insert("keys", json!({"kid": "1", "jwk": r#"{"kid":"1","kty":"oct","k":"c2VjcmV0"}"#})).is_ok());
}

#[test]
fn credentials() {
    let consumer = json!({"id": CONSUMER});
    let row = insert("basicauth_credentials", json!({"username": "u", "password": "pw", "consumer": consumer})).expect("fine");
    assert_eq!(row["password"], super::password_hash("pw", CONSUMER).as_str());
    let row = insert("jwt_secrets", json!({"consumer": consumer})).expect("fine");
    assert_eq!((row["key"].as_str().map(str::len), row["secret"].as_str().map(str::len)), (Some(32), Some(32)));
    let refused = insert("jwt_secrets", json!({"consumer": consumer, "algorithm": "RS256", "rsa_public_key": "x"}));
    assert_eq!(
        refused.expect_err("no key"),
        "2 schema violations (failed conditional validation given value of field 'algorithm'; rsa_public_key: invalid key)"
    );
}

#[test]
fn targets_have_a_port() {
    let target = |target: &str| insert("targets", json!({"target": target, "upstream": {"id": CONSUMER}})).expect("fine")["target"].clone();
    assert_eq!(target("a.test"), "a.test:8000");
    assert_eq!(target("127.0.0.1:80"), "127.0.0.1:80");
    assert_eq!(target("[::1]"), "[0000:0000:0000:0000:0000:0000:0000:0001]:8000");
}

#[test]
fn an_upstream_left_without_health_checks_reads_as_one_with_the_defaults() {
    let nulls = json!({"name": "u", "healthchecks": {"threshold": null, "active": {"timeout": null, "healthy": {"interval": null}}}});
    let row = insert("upstreams", nulls).expect("fine");
    assert_eq!(row["healthchecks"]["active"]["timeout"], Value::Null);
    let record = <super::Upstream as schema::RecordType>::record();
    let upstream: super::Upstream = schema::read(record, Value::Object(row)).expect("fits");
    assert_eq!((upstream.healthchecks.active.timeout, upstream.healthchecks.active.healthy.interval), (1.0, 0.0));
}
