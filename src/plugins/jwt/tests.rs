use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaEncoding, RsaKeyPair};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};

use super::*;
use crate::http::Method;
use crate::model::Consumer;
use crate::plugin::testing::{Rows, exchange, hs256, message, plugin, run, values};

const BOB: &str = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";

fn rows() -> Rows {
    Rows::default()
        .with::<Consumer>(json!({"id": BOB, "username": "bob"}))
        .with::<Consumer>(json!({"username": "nobody"}))
        .with::<JwtSecret>(json!({"consumer": {"id": BOB}, "key": "a", "secret": "s"}))
}

/// Who the client is, or the body of the answer and its challenge.
fn outcome(config: Value, rows: Rows, x: &mut Exchange) -> Result<String, (String, String)> {
    x.world = rows.world();
    run(plugin::<Jwt>(config).access(x)).map_err(|reply| {
        assert_eq!(reply.status, 401);
        (message(&reply).to_owned(), values(&reply.headers, "www-authenticate").concat())
    })?;
    Ok(values(&x.request.headers, "x-consumer-username").concat())
}

fn get(config: Value, target: &str, headers: &[(&str, &str)]) -> Result<String, (String, String)> {
    outcome(config, rows(), &mut exchange("GET", target, headers))
}

fn with_token(config: Value, token: &str) -> Result<String, (String, String)> {
    get(config, "/", &[("Authorization", &format!("Bearer {token}"))])
}

fn token(claims: Value) -> String {
    hs256("s", &json!({"typ": "JWT", "alg": "HS256"}), &claims)
}

fn bob() -> Result<String, (String, String)> {
    Ok("bob".to_owned())
}

fn refused(text: &str) -> Result<String, (String, String)> {
    Err((json!({"message": text}).to_string(), "Bearer error=\"invalid_token\"".to_owned()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn where_tokens_are_found() {
    let config = || json!({"uri_param_names": ["jwt", "t"], "cookie_names": ["c1", "c2"]});
    let (good, bad) = (token(json!({"iss": "a"})), hs256("x", &json!({"alg": "HS256"}), &json!({"iss": "a"})));
    let none = || Err((json!({"message": "Unauthorized"}).to_string(), "Bearer".to_owned()));
    let bearer = format!("Bearer {good}");
    for (target, headers, expected) in [
        (format!("/?jwt={good}"), vec![], bob()),
        (format!("/?t={good}"), vec![], bob()),
        ("/".to_owned(), vec![("Cookie", format!("x=1; c2={good}"))], bob()),
        ("/".to_owned(), vec![("Authorization", format!("bearer  {good} "))], bob()),
        (format!("/?jwt={good}&jwt={good}"), vec![("Authorization", bearer.clone())], bob()),
        (format!("/?jwt={bad}"), vec![("Authorization", bearer.clone())], refused("Multiple tokens provided")),
        ("/".to_owned(), vec![("Authorization", format!("BEARER {good}"))], none()),
        ("/".to_owned(), vec![("Authorization", good.clone())], none()),
        ("/?jwt=&t".to_owned(), vec![], none()),
        ("/".to_owned(), vec![("Authorization", format!("{bearer}.x"))], refused("Bad token; invalid signature")),
        ("/".to_owned(), vec![("Authorization", "Bearer x.y.z".to_owned())], refused("Bad token; invalid JSON")),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(get(config(), &target, &headers), expected, "{target} {headers:?}");
    }
}

#[test]
fn which_credential() {
    let header = json!({"alg": "HS256", "kid": "a"});
    let config = || json!({"key_claim_name": "kid"});
    assert_eq!(with_token(config(), &hs256("s", &header, &json!({}))), bob());
    assert_eq!(with_token(config(), &token(json!({"kid": "a"}))), bob());
    assert_eq!(with_token(config(), &hs256("s", &header, &json!({"kid": "b"}))), refused("No credentials found for given 'kid'"));
    assert_eq!(with_token(config(), &token(json!({"iss": "a"}))), refused("No mandatory 'kid' in claims"));
    for odd in [json!(""), json!(5), json!(["a"]), Value::Null] {
        assert_eq!(with_token(config(), &token(json!({"kid": odd}))), refused("Invalid 'kid' in claims"));
    }
    assert_eq!(with_token(json!({}), &hs256("x", &json!({"alg": "HS256"}), &json!({"iss": "a"}))), refused("Invalid signature"));
    assert_eq!(with_token(json!({}), &hs256("s", &json!({"alg": "HS512"}), &json!({"iss": "a"}))), refused("Invalid algorithm"));
}

#[test]
fn claims() {
    let wrong = |body: Value| Err((body.to_string(), "Bearer error=\"invalid_token\"".to_owned()));
    let number = "must be a number";
    let now = now();
    for (claims, expected) in [
        (json!({"exp": now + 60, "nbf": now - 60}), bob()),
        (json!({"exp": now as f64 + 60.5, "nbf": now - 60}), bob()),
        (json!({}), wrong(json!({"exp": number, "nbf": number}))),
        (json!({"exp": (now + 60).to_string(), "nbf": null}), wrong(json!({"exp": number, "nbf": number}))),
        (json!({"exp": now - 5, "nbf": now + 60}), wrong(json!({"exp": "token expired", "nbf": "token not valid yet"}))),
    ] {
        let mut claims = claims;
        claims["iss"] = "a".into();
        assert_eq!(with_token(json!({"claims_to_verify": ["exp", "nbf"]}), &token(claims.clone())), expected, "{claims}");
    }
    let maximum = || json!({"maximum_expiration": 100, "claims_to_verify": ["exp"]});
    assert_eq!(with_token(maximum(), &token(json!({"iss": "a", "exp": now + 60}))), bob());
    let exceeds = wrong(json!({"exp": "exceeds maximum allowed expiration"}));
    assert_eq!(with_token(maximum(), &token(json!({"iss": "a", "exp": now + 200}))), exceeds);
    assert_eq!(with_token(json!({"maximum_expiration": 100}), &token(json!({"iss": "a"}))), exceeds);
}

#[test]
fn secrets_in_base64() {
    let rows = |secret: &str| rows().with::<JwtSecret>(json!({"consumer": {"id": BOB}, "key": "b", "secret": secret}));
    let ask = |secret: &str| {
        let token = hs256("s\u{ff}", &json!({"alg": "HS256"}), &json!({"iss": "b"}));
        let mut x = exchange("GET", "/", &[("Authorization", &format!("Bearer {token}"))]);
        outcome(json!({"secret_is_base64": true}), rows(secret), &mut x)
    };
    assert_eq!(ask(&BASE64_STANDARD.encode("s\u{ff}")), bob());
    assert_eq!(ask(&BASE64_URL_SAFE_NO_PAD.encode("s\u{ff}")), bob());
    assert_eq!(ask("!!!"), refused("Invalid key/secret"));
}

#[test]
fn realm_anonymous_preflight() {
    let challenge = |headers: &[(&str, &str)]| get(json!({"realm": "shop"}), "/", headers).unwrap_err().1;
    assert_eq!(challenge(&[]), "Bearer realm=\"shop\"");
    assert_eq!(challenge(&[("authorization", "Bearer x")]), "Bearer realm=\"shop\", error=\"invalid_token\"");
    assert_eq!(with_token(json!({"anonymous": "nobody"}), "x.y.z"), Ok("nobody".to_owned()));
    let mut x = exchange("GET", "/", &[]);
    x.request.method = Method::Options;
    assert_eq!(outcome(json!({"run_on_preflight": false}), rows(), &mut x), Ok(String::new()));
    assert!(outcome(json!({}), rows(), &mut x).is_err());
}

/// Signs with a private key in PKCS #8.
fn sign(algorithm: &str, private: &[u8], text: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |padding: &'static dyn RsaEncoding| {
        let pair = RsaKeyPair::from_pkcs8(private).unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &random, text, &mut signature).unwrap();
        signature
    };
    let ecdsa = |curve: &'static EcdsaSigningAlgorithm| {
        EcdsaKeyPair::from_pkcs8(curve, private).unwrap().sign(&random, text).unwrap().as_ref().to_vec()
    };
    match algorithm {
        "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
        "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
        "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
        "PS256" => rsa(&signature::RSA_PSS_SHA256),
        "PS384" => rsa(&signature::RSA_PSS_SHA384),
        "PS512" => rsa(&signature::RSA_PSS_SHA512),
        "ES256" => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        "ES384" => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        "ES512" => ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        _ => Ed25519KeyPair::from_pkcs8_maybe_unchecked(private).unwrap().sign(text).as_ref().to_vec(),
    }
}

#[test]
fn public_keys() {
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"] {
        let made = match algorithm {
            "ES256" => Some(&rcgen::PKCS_ECDSA_P256_SHA256),
            "ES384" => Some(&rcgen::PKCS_ECDSA_P384_SHA384),
            "ES512" => Some(&rcgen::PKCS_ECDSA_P521_SHA512),
            "EdDSA" => Some(&rcgen::PKCS_ED25519),
            _ => None,
        }
        .map(|kind| rcgen::KeyPair::generate_for(kind).unwrap());
        let pair = made.as_ref().unwrap_or(&rsa);
        let credential = json!({"consumer": {"id": BOB}, "key": "k", "algorithm": algorithm, "rsa_public_key": pair.public_key_pem()});
        let plugin = plugin::<Jwt>(json!({}));
        let world = rows().with::<JwtSecret>(credential).world();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(json!({"alg": algorithm}).to_string().as_bytes()), encode(br#"{"iss":"k"}"#));
        let mut signature = sign(algorithm, pair.serialized_der(), signed.as_bytes());
        let ask = |signature: &[u8]| {
            let mut x = exchange("GET", "/", &[("Authorization", &format!("Bearer {signed}.{}", encode(signature)))]);
            x.world = Arc::clone(&world);
            run(plugin.access(&mut x)).map_err(|reply| message(&reply).to_owned())
        };
        // the second time with the key that was kept
        assert_eq!([ask(&signature), ask(&signature)], [Ok(()), Ok(())], "{algorithm}");
        signature[10] ^= 1;
        for bad in [&signature[..], &signature[..10], b""] {
            assert_eq!(ask(bad), Err(json!({"message": "Invalid signature"}).to_string()), "{algorithm}");
        }
    }
}

#[test]
fn keys_that_do_not_fit_the_algorithm() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    for key in [Some(pair.public_key_pem()), Some("nope".to_owned()), None] {
        let rows = rows().with::<JwtSecret>(json!({"consumer": {"id": BOB}, "key": "k", "algorithm": "ES256", "rsa_public_key": key}));
        let token = hs256("s", &json!({"alg": "ES256"}), &json!({"iss": "k"}));
        let mut x = exchange("GET", "/", &[("Authorization", &format!("Bearer {token}"))]);
        assert_eq!(outcome(json!({}), rows, &mut x), refused("Invalid key/secret"));
    }
}
