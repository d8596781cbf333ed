//! Tokens that the ring accepts, and every mutation that it refuses.

use contracts::{Role, access_token::LIFETIME_SECS};
use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const ED25519: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIFpxbuzEgf0W6cprMLllvwwgN36LTRnxTatohC1ohvu0
-----END PRIVATE KEY-----
";

fn secrets(hs256: &str) -> GatewaySecrets {
    GatewaySecrets { jwt_hs256: hs256.to_owned().into(), ..GatewaySecrets::default() }
}

fn ring() -> KeyRing {
    KeyRing::new(&secrets(&"a".repeat(32))).expect("a long enough secret")
}

fn claims() -> AccessClaims {
    AccessClaims::new(Uuid::now_v7(), Role::Student, Uuid::now_v7(), chrono::Utc::now(), LIFETIME_SECS)
}

fn signed(ring: &KeyRing, header: &Header, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, &ring.signer).expect("signs")
}

#[test]
fn an_own_token_is_read_and_a_foreign_one_is_not() {
    let (ring, claims) = (ring(), claims());
    assert_eq!(ring.verify(&ring.sign(&claims)), Ok(claims.clone()));
    let foreign = KeyRing::new(&secrets(&"b".repeat(32))).expect("a long enough secret");
    assert_eq!(ring.verify(&foreign.sign(&claims)), Err(Refused));
    let forged = signed(&foreign, &ring.header, &serde_json::to_value(&claims).expect("json"));
    assert_eq!(ring.verify(&forged), Err(Refused));
}

#[test]
fn every_mutation_of_a_good_token_is_refused() {
    let ring = ring();
    let good = serde_json::to_value(claims()).expect("json");
    let now = get_current_timestamp();
    let mutations: [(&str, Option<Value>); 19] = [
        ("exp", None),
        ("exp", Some(json!((now + 600).to_string()))),
        ("exp", Some(json!(now - 31))),
        ("exp", Some(json!(now as f64 + 600.5))),
        ("nbf", None),
        ("nbf", Some(json!(now + 60))),
        ("nbf", Some(json!("0"))),
        ("iat", None),
        ("iss", None),
        ("iss", Some(json!("elsewhere"))),
        ("iss", Some(json!(["registrar"]))),
        ("aud", None),
        ("aud", Some(json!("elsewhere"))),
        ("sub", None),
        ("sub", Some(json!("not a uuid"))),
        ("jti", None),
        ("sid", None),
        ("role", None),
        ("role", Some(json!("root"))),
    ];
    for (claim, value) in mutations {
        let mut bad = good.clone();
        let fields = bad.as_object_mut().expect("an object");
        match &value {
            Some(value) => fields.insert(claim.to_owned(), value.clone()),
            None => fields.remove(claim),
        };
        assert_eq!(ring.verify(&signed(&ring, &ring.header, &bad)), Err(Refused), "{claim}: {value:?}");
    }
}

#[test]
fn the_algorithm_is_the_keys_and_not_the_tokens() {
    let ring = ring();
    let good = serde_json::to_value(claims()).expect("json");
    let kid = ring.header.kid.clone();
    for header in [
        Header { kid: kid.clone(), ..Header::new(Algorithm::HS384) },
        Header { kid: None, ..Header::new(Algorithm::HS256) },
        Header { kid: Some("unknown".into()), ..Header::new(Algorithm::HS256) },
    ] {
        assert_eq!(ring.verify(&signed(&ring, &header, &good)), Err(Refused), "{header:?}");
    }
    let token = ring.sign(&claims());
    for bad in ["", ".", "..", "a.b.c", token.rsplit_once('.').expect("three parts").0, &format!("{token}x")] {
        assert_eq!(ring.verify(bad), Err(Refused), "{bad}");
    }
}

#[test]
fn a_header_that_another_program_wrote_is_read_and_what_it_must_understand_is_not_there() {
    let ring = ring();
    let claims = claims();
    let json = serde_json::to_value(&claims).expect("json");
    let foreign = Header { cty: Some("JSON".into()), ..ring.header.clone() };
    assert_eq!(ring.verify(&signed(&ring, &foreign, &json)), Ok(claims));
    let critical = Header { crit: Some(vec!["exp".into()]), ..ring.header.clone() };
    assert_eq!(ring.verify(&signed(&ring, &critical, &json)), Err(Refused));
}

#[test]
fn a_rotated_secret_still_verifies() {
    let (old, new) = ("a".repeat(32), "b".repeat(32));
    let token = ring().sign(&claims());
    let rotated = KeyRing::new(&GatewaySecrets { jwt_hs256_previous: Some(old.into()), ..secrets(&new) })
        .expect("both are long enough");
    assert!(rotated.verify(&token).is_ok());
    assert!(ring().verify(&rotated.sign(&claims())).is_err());
}

#[test]
fn an_ed25519_key_signs_and_its_public_half_is_published() {
    let with_ed25519 = GatewaySecrets { jwt_eddsa_pem: Some(ED25519.to_owned().into()), ..secrets(&"a".repeat(32)) };
    let ring = KeyRing::new(&with_ed25519).expect("a good key");
    let claims = claims();
    let token = ring.sign(&claims);
    assert_eq!(ring.verify(&token), Ok(claims));
    assert_eq!(jsonwebtoken::decode_header(&token).expect("a header").alg, Algorithm::EdDSA);
    let public = serde_json::to_value(ring.public_keys()).expect("json");
    assert_eq!(public["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!((&public["keys"][0]["kty"], &public["keys"][0]["crv"]), (&json!("OKP"), &json!("Ed25519")));
    assert_eq!(public["keys"][0].get("d"), None);
    assert!(KeyRing::new(&secrets("short")).is_err());
}

#[test]
fn without_a_public_key_none_is_published() {
    assert_eq!(serde_json::to_value(ring().public_keys()).expect("json"), json!({ "keys": [] }));
}
