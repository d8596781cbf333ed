//! Bad input: a 4xx with a stable type and the field, and nothing published.

use contracts::{Role, access_token::AccessClaims};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use testkit::fixtures::{self, NewCourseBatch, User};
use uuid::Uuid;

use crate::served::{JWT_SECRET, Served, answer};

/// A request, and what must be said of it: status, problem type, field.
type Case = (&'static str, RequestBuilder, u16, &'static str, Option<&'static str>);

fn visitor(batch_id: Uuid) -> Value {
    json!({ "batch_id": batch_id, "email": "asha@example.org", "full_name": "Asha Rao" })
}

fn payment() -> Value {
    json!({ "registration_id": Uuid::now_v7(), "method": "upi", "transaction_id": "UTR 12345", "amount": "11800.00", "currency": "INR" })
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

fn without(mut body: Value, field: &str) -> Value {
    body.as_object_mut().expect("an object").remove(field);
    body
}

async fn refuse(served: &Served, cases: Vec<Case>) {
    for (what, request, status, slug, field) in cases {
        let (got, body) = answer(request).await;
        assert_eq!(got.as_u16(), status, "{what}: {body}");
        assert_eq!(body["type"], format!("/problems/{slug}"), "{what}: {body}");
        assert_eq!(body["retryable"], false, "{what}: {body}");
        assert_eq!(body["instance"].as_str().map(str::len), Some(32), "{what}: the trace id: {body}");
        if let Some(field) = field {
            let fields: Vec<_> = body["errors"].as_array().into_iter().flatten().map(|error| &error["field"]).collect();
            assert!(fields.iter().any(|named| *named == field), "{what}: {body}");
        }
    }
    assert_eq!(served.published().await, 0, "nothing was published");
}

#[tokio::test]
async fn a_bad_registration_is_refused_and_not_published() {
    let served = Served::start("bad registration").await;
    let db = &served.sandbox.db;
    let open = NewCourseBatch::of(5).insert(db).await.id;
    let closed = NewCourseBatch { status: "closed", ..NewCourseBatch::of(5) }.insert(db).await.id;
    let student = fixtures::user(db, &served.sandbox.email("student"), Role::Student).await;
    let admin = fixtures::user(db, &served.sandbox.email("admin"), Role::Admin).await;
    let post = |body: &Value| served.post("/v1/registrations").json(body);
    let raw = |body: Vec<u8>| served.post("/v1/registrations").header("content-type", "application/json").body(body);
    let invalid = "validation-failed";
    let cases: Vec<Case> = vec![
        ("malformed JSON", raw(b"{\"batch_id\":".to_vec()), 400, "malformed-json", None),
        ("invalid UTF-8", raw(b"{\"email\":\"\xff\"}".to_vec()), 400, "malformed-json", None),
        ("a raw NUL", raw(b"{\"email\":\"\0\"}".to_vec()), 400, "malformed-json", None),
        ("too deep", raw("[".repeat(60_000).into_bytes()), 422, invalid, None),
        ("over 64 KiB", raw(vec![b' '; 64 * 1024 + 1]), 413, "body-too-large", None),
        ("no JSON", served.post("/v1/registrations").body("a=b"), 415, "unsupported-media-type", None),
        ("unknown field", post(&with(visitor(open), "role", json!("admin"))), 422, invalid, Some("role")),
        ("missing field", post(&without(visitor(open), "batch_id")), 422, invalid, Some("batch_id")),
        ("missing name", post(&without(visitor(open), "full_name")), 422, invalid, Some("full_name")),
        ("wrong type", post(&with(visitor(open), "full_name", json!(7))), 422, invalid, Some("full_name")),
        ("over-long", post(&with(visitor(open), "full_name", json!("a".repeat(201)))), 422, invalid, Some("full_name")),
        ("NUL", post(&with(visitor(open), "full_name", json!("a\u{0}b"))), 422, invalid, Some("full_name")),
        ("no address", post(&with(visitor(open), "email", json!("asha"))), 422, invalid, Some("email")),
        (
            "header injection",
            post(&with(visitor(open), "email", json!("a@b.co\r\nBcc: c@d.ef"))),
            422,
            invalid,
            Some("email"),
        ),
        ("unknown batch", post(&visitor(Uuid::now_v7())), 422, "unknown-batch", Some("batch_id")),
        ("closed batch", post(&visitor(closed)), 422, "batch-closed", Some("batch_id")),
        (
            "a student who says who",
            post(&visitor(open)).bearer_auth(served.token(&student)),
            422,
            invalid,
            Some("email"),
        ),
        ("an admin", post(&json!({ "batch_id": open })).bearer_auth(served.token(&admin)), 403, "forbidden", None),
        ("bad key", post(&visitor(open)).header("idempotency-key", "k".repeat(256)), 400, "invalid-request", None),
        ("no such address", served.post("/v1/nowhere"), 404, "not-found", None),
        ("no such method", served.get("/v1/registrations/x/cancel"), 405, "method-not-allowed", None),
        (
            "no UUID",
            served.post("/v1/registrations/x/cancel").bearer_auth(served.token(&student)),
            404,
            "not-found",
            None,
        ),
        ("unknown parameter", served.get("/v1/batches?colour=red"), 400, "invalid-request", None),
        ("forged operation", served.get("/v1/operations/op_0"), 404, "not-found", None),
    ];
    refuse(&served, cases).await;
    served.close().await;
}

#[tokio::test]
async fn a_bad_payment_or_decision_is_refused_and_not_published() {
    let served = Served::start("bad payment").await;
    let db = &served.sandbox.db;
    let student = fixtures::user(db, &served.sandbox.email("student"), Role::Student).await;
    let accountant = fixtures::user(db, &served.sandbox.email("accountant"), Role::Accountant).await;
    let (student, accountant) = (served.token(&student), served.token(&accountant));
    let pay = |body: &Value| served.post("/v1/payments").bearer_auth(&student).json(body);
    let decide = |path: &str, token: &str, body: Value| served.post(path).bearer_auth(token).json(&body);
    let one = format!("/v1/payments/{}/approve", Uuid::now_v7());
    let items = |n: usize| json!({ "items": (0..n).map(|_| json!({ "payment_id": Uuid::now_v7(), "verdict": "approve" })).collect::<Vec<_>>() });
    let nameless = json!({ "items": [{ "payment_id": Uuid::now_v7(), "verdict": "reject" }] });
    let (many, invalid) = ("/v1/payments/decisions", "validation-failed");
    let cases: Vec<Case> = vec![
        ("negative", pay(&with(payment(), "amount", json!("-1.00"))), 422, invalid, Some("amount")),
        ("three decimals", pay(&with(payment(), "amount", json!("1.001"))), 422, invalid, Some("amount")),
        ("a number", pay(&with(payment(), "amount", json!(11800))), 422, invalid, Some("amount")),
        ("overflow", pay(&with(payment(), "amount", json!("9".repeat(40)))), 422, invalid, Some("amount")),
        ("too large", pay(&with(payment(), "amount", json!("1000000000000.00"))), 422, invalid, Some("amount")),
        ("unknown currency", pay(&with(payment(), "currency", json!("XXX"))), 422, invalid, Some("currency")),
        ("unknown method", pay(&with(payment(), "method", json!("barter"))), 422, invalid, Some("method")),
        ("missing reference", pay(&without(payment(), "transaction_id")), 422, invalid, Some("transaction_id")),
        ("no token", served.post("/v1/payments").json(&payment()), 401, "unauthenticated", None),
        ("an accountant paying", decide("/v1/payments", &accountant, payment()), 403, "forbidden", None),
        ("a student approving", decide(&one, &student, json!({})), 403, "forbidden", None),
        ("a student deciding many", decide(many, &student, items(1)), 403, "forbidden", None),
        ("501 decisions", decide(many, &accountant, items(501)), 422, invalid, Some("items")),
        ("no decision", decide(many, &accountant, items(0)), 422, invalid, Some("items")),
        ("no reason", decide(many, &accountant, nameless), 422, invalid, Some("items[0].rejection_code")),
    ];
    refuse(&served, cases).await;
    served.close().await;
}

#[tokio::test]
async fn a_bad_token_is_always_the_same_401() {
    let served = Served::start("bad token").await;
    let user = fixtures::user(&served.sandbox.db, &served.sandbox.email("student"), Role::Student).await;
    let good = served.token(&user);
    let header = jsonwebtoken::decode_header(&good).expect("a JWT");
    let claims = |user: &User, seconds_ago| {
        let issued = chrono::Utc::now() - chrono::TimeDelta::seconds(seconds_ago);
        AccessClaims::new(user.id, user.role, Uuid::now_v7(), issued, 600)
    };
    let sign = |header: &Header, claims: &AccessClaims, secret: &str| {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).expect("signs")
    };
    let payload = good.split('.').nth(1).expect("three parts");
    let hs512 = Header { alg: Algorithm::HS512, ..header.clone() };
    let unknown_kid = Header { kid: Some("nobody".into()), ..header.clone() };
    let tokens = [
        ("expired", sign(&header, &claims(&user, 3_600), JWT_SECRET)),
        ("not yet", sign(&header, &claims(&user, -3_600), JWT_SECRET)),
        ("foreign", sign(&header, &claims(&user, 0), "some other key that nobody here has ever seen")),
        ("wrong alg", sign(&hs512, &claims(&user, 0), JWT_SECRET)),
        ("unknown kid", sign(&unknown_kid, &claims(&user, 0), JWT_SECRET)),
        // {"alg":"none","typ":"JWT"}
        ("none", format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.")),
        ("nonsense", "nonsense".to_owned()),
    ];
    let cases = tokens.iter().map(|(what, token)| -> Case {
        (what, served.post("/v1/payments").bearer_auth(token).json(&payment()), 401, "unauthenticated", None)
    });
    refuse(&served, cases.collect()).await;
    let response = served.post("/v1/payments").bearer_auth("x").json(&payment()).send().await.expect("an answer");
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    let (status, _) = answer(served.get("/v1/payments").bearer_auth(&good)).await;
    assert_eq!(status, 200, "the good one is good");
    served.close().await;
}
