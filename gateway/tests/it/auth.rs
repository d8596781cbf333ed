//! Signing in and what ends it, through HTTP on a real gateway: every bad token is the same 401, a spent refresh token
//! ends its family, a mailed link is good once.

use std::time::{Duration, Instant};

use contracts::{Role, access_token, access_token::AccessClaims, ids::new_id, tokens::MailTokens};
use futures::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use testkit::{eventually, fixtures};
use uuid::Uuid;

use crate::system::LIMIT;
use site::{JWT_SECRET, Site, TOKENS_SECRET, ok, send, start, text};

mod site;

/// The answer without what differs from request to request.
async fn refusal(response: Response) -> (u16, Option<String>, Value) {
    let challenge = response.headers().get("www-authenticate").map(|value| format!("{value:?}"));
    let status = response.status().as_u16();
    let mut body: Value = response.json().await.expect("a problem");
    body.as_object_mut().expect("an object").remove("instance");
    (status, challenge, body)
}

fn sign(header: &Header, claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).expect("signs")
}

#[tokio::test]
async fn every_bad_token_is_the_same_401() {
    let site = Site::new("bad_tokens").await;
    let user = fixtures::user(&site.sandbox.db, &site.sandbox.email("asha"), Role::Student).await;
    let now = chrono::Utc::now();
    let claims = AccessClaims::new(user.id, user.role, new_id(), now, access_token::LIFETIME_SECS);
    let good = serde_json::to_value(&claims).expect("JSON");
    let header =
        Header { kid: Some(access_token::kid("HS256", JWT_SECRET.as_bytes())), ..Header::new(Algorithm::HS256) };
    assert_eq!(site.me(&sign(&header, &good, JWT_SECRET)).await.status(), StatusCode::OK);

    let with = |claim: &str, value: Value| {
        let mut claims = good.clone();
        claims[claim] = value;
        sign(&header, &claims, JWT_SECRET)
    };
    let without = |claim: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(claim);
        sign(&header, &claims, JWT_SECRET)
    };
    let payload = sign(&header, &good, JWT_SECRET).split('.').nth(1).expect("three parts").to_owned();
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    let mut bad = vec![
        unsigned,
        "nonsense".to_owned(),
        sign(&header, &good, "another secret of a test, 32 bytes or more"),
        sign(&Header { alg: Algorithm::HS512, ..header.clone() }, &good, JWT_SECRET),
        sign(&Header { kid: Some("unknown".into()), ..header.clone() }, &good, JWT_SECRET),
        sign(&Header { kid: None, ..header.clone() }, &good, JWT_SECRET),
        with("exp", json!((now.timestamp() + 600).to_string())),
        with("exp", json!(now.timestamp() - 60)),
        with("nbf", json!(now.timestamp() + 120)),
        with("iss", json!("elsewhere")),
        with("aud", json!("elsewhere")),
        with("role", json!("root")),
    ];
    bad.extend(["iss", "aud", "sub", "jti", "sid", "role", "iat", "nbf", "exp"].map(without));
    let expected = refusal(send(site.http.get(site.url("/v1/me"))).await).await;
    assert_eq!((expected.0, expected.1.as_deref()), (401, Some("\"Bearer\"")));
    for token in bad {
        assert_eq!(refusal(site.me(&token).await).await, expected, "{token}");
    }
    site.close().await;
}

#[tokio::test]
async fn after_a_logout_every_gateway_refuses_within_five_seconds() {
    let site = Site::new("logout").await;
    let other = start(&site.sandbox).await;
    let (access, refresh) = site.student("asha").await;
    let (site_ref, elsewhere) = (&site, format!("http://{}/v1/me", other.address()));
    let ask_elsewhere = || async { send(site_ref.http.get(&elsewhere).bearer_auth(&access)).await.status() };
    assert_eq!(ask_elsewhere().await, StatusCode::OK);

    let logout = send(site.http.post(site.url("/v1/auth/logout")).bearer_auth(&access)).await;
    assert_eq!(logout.status(), StatusCode::NO_CONTENT);
    assert_eq!(site.me(&access).await.status(), StatusCode::UNAUTHORIZED);
    eventually("the other gateway refuses", Duration::from_secs(5), || async {
        ask_elsewhere().await == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(site.refresh(&refresh).await.status(), StatusCode::UNAUTHORIZED);

    let late = start(&site.sandbox).await;
    let answer = send(site.http.get(format!("http://{}/v1/me", late.address())).bearer_auth(&access)).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "a gateway that starts afterwards knows it too");
    late.stop().await;
    other.stop().await;
    site.close().await;
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_the_family_but_a_lost_answer_does_not() {
    let site = Site::new("refresh").await;
    let (_, first) = site.student("asha").await;
    let second = ok(site.refresh(&first).await).await;
    let again = ok(site.refresh(&first).await).await;
    assert_eq!(
        text(&second, "refresh_token"),
        text(&again, "refresh_token"),
        "the answer was lost: the same successor"
    );

    sqlx::query("UPDATE sessions SET rotated_at = rotated_at - interval '11 seconds' WHERE rotated_at IS NOT NULL")
        .execute(&site.sandbox.db)
        .await
        .expect("updates");
    assert_eq!(site.refresh(&first).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        site.refresh(&text(&second, "refresh_token")).await.status(),
        StatusCode::UNAUTHORIZED,
        "the whole family"
    );
    assert_eq!(site.me(&text(&second, "access_token")).await.status(), StatusCode::UNAUTHORIZED);
    site.close().await;
}

#[tokio::test]
async fn fifty_refreshes_at_once_leave_one_live_token() {
    let site = Site::new("refreshes").await;
    let (_, first) = site.student("asha").await;
    let answers = join_all((0..50).map(|_| site.refresh(&first))).await;
    let mut successors = Vec::new();
    for answer in answers {
        successors.push(text(&ok(answer).await, "refresh_token"));
    }
    successors.dedup();
    assert_eq!(successors.len(), 1, "all are told the same successor");
    let live: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions WHERE rotated_at IS NULL AND revoked_at IS NULL")
        .fetch_one(&site.sandbox.db)
        .await
        .expect("counts");
    assert_eq!(live, 1);
    assert_eq!(site.refresh(&successors[0]).await.status(), StatusCode::OK);
    site.close().await;
}

/// Guesses five times, then knows the password and is refused. The delay begins at one second: where a stalled machine
/// answers later than that, the answer proves nothing, and all is done again. Returns how often it was let in so late.
async fn locked_out(site: &Site, email: &str) -> i64 {
    let mut let_in = 0;
    for _ in 0..20 {
        let mut last_guess = Instant::now();
        for _ in 0..5 {
            last_guess = Instant::now();
            match site.login(email, "not the password").await.status() {
                StatusCode::UNAUTHORIZED => {}
                // Of an account that nobody can sign in to, guesses are never forgotten.
                StatusCode::TOO_MANY_REQUESTS if let_in == 0 => {}
                other => panic!("{email}: {other}"),
            }
        }
        let answer = site.login(email, fixtures::PASSWORD).await;
        let after = last_guess.elapsed();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.headers().contains_key("retry-after"));
            return let_in;
        }
        assert!(after >= Duration::from_secs(1), "{email}: {} after {after:?}", answer.status());
        let_in += i64::from(answer.status() == StatusCode::OK);
    }
    panic!("{email} is never refused, or each request takes a second");
}

#[tokio::test]
async fn guessing_a_password_is_slowed_alike_for_known_and_unknown_accounts() {
    let site = Site::new("lockout").await;
    let user = fixtures::user(&site.sandbox.db, &site.sandbox.email("asha"), Role::Student).await;
    let let_in = locked_out(&site, &user.email).await;
    assert_eq!(locked_out(&site, &site.sandbox.email("nobody")).await, 0);
    eventually("the delay passes", LIMIT, || async {
        site.login(&user.email, fixtures::PASSWORD).await.status() == StatusCode::OK
    })
    .await;
    let audited: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit_logs WHERE action = 'auth.login' AND actor_id = $1")
            .bind(user.id)
            .fetch_one(&site.sandbox.db)
            .await
            .expect("counts");
    assert_eq!(audited, let_in + 1);
    site.close().await;
}

#[tokio::test]
async fn a_mailed_link_signs_in_once() {
    let site = Site::new("magic_link").await;
    let user = fixtures::user(&site.sandbox.db, &site.sandbox.email("asha"), Role::Student).await;
    let token = site.mailed_link(user.id, None).await;
    let exchange = || site.post("/v1/auth/exchange", json!({ "token": token }));
    let answers = join_all((0..10).map(|_| exchange())).await;
    let granted = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
    assert_eq!(granted, 1, "ten at once: one is let in");
    assert_eq!(exchange().await.status(), StatusCode::UNAUTHORIZED);
    let forged = MailTokens::new(b"another secret").encode(new_id());
    assert_eq!(site.post("/v1/auth/exchange", json!({ "token": forged })).await.status(), StatusCode::UNAUTHORIZED);
    site.close().await;
}

#[tokio::test]
async fn a_mailed_link_for_a_registration_confirms_it() {
    let site = Site::new("confirmation").await;
    let student = fixtures::user(&site.sandbox.db, &site.sandbox.email("asha"), Role::Student).await;
    let batch = fixtures::NewCourseBatch::of(2).insert(&site.sandbox.db).await;
    let registration = fixtures::registration(&site.sandbox.db, &batch, student.id, "seat_held").await;
    let token = site.mailed_link(student.id, Some(registration)).await;
    let answer = ok(site.post("/v1/auth/exchange", json!({ "token": token })).await).await;
    let operation = text(&answer["confirmation"], "operation_id");
    let path = site.url(&format!("/v1/operations/{operation}"));
    let pending = ok(send(site.http.get(path).bearer_auth(text(&answer, "access_token"))).await).await;
    assert_eq!(pending["state"], "pending");
    let body = site.sandbox.get("registrations").await.expect("the command is in its queue");
    let events: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(events[0]["data"], json!({ "registration_id": registration, "student_id": student.id }));
    site.close().await;
}

#[tokio::test]
async fn a_forgotten_password_is_set_anew_and_ends_every_sign_in() {
    let site = Site::new("forgot").await;
    let user = fixtures::user(&site.sandbox.db, &site.sandbox.email("asha"), Role::Student).await;
    let tokens = ok(site.login(&user.email, fixtures::PASSWORD).await).await;
    let mut answers = Vec::new();
    for email in [&user.email, &site.sandbox.email("nobody")] {
        let answer = site.post("/v1/auth/forgot", json!({ "email": email })).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        answers.push(answer.text().await.expect("a body"));
    }
    assert_eq!(answers[0], answers[1], "nothing tells whether the account exists");
    let body = site.sandbox.get("email").await.expect("one mail is on its way");
    let events: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(events[0]["data"]["template"], "password_reset");
    let token_id: Uuid = events[0]["data"]["token_id"].as_str().expect("a token").parse().expect("a UUID");

    let token = MailTokens::new(TOKENS_SECRET.as_bytes()).encode(token_id);
    let reset = |password: &str| site.post("/v1/auth/reset", json!({ "token": token, "password": password }));
    assert_eq!(reset("short").await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(reset(&"p".repeat(73)).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(reset("a brand new password").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(reset("and yet another one").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.me(&text(&tokens, "access_token")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.login(&user.email, fixtures::PASSWORD).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.login(&user.email, "a brand new password").await.status(), StatusCode::OK);
    site.close().await;
}
