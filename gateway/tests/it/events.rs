//! `GET /v1/events`: whoever listens is told, on any gateway, of what is theirs and of nothing else; whoever was away is
//! told what they missed.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use contracts::{
    Role,
    access_token::{AccessClaims, kid},
    ids::new_id,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{
    Sandbox, eventually,
    fixtures::{self, InsertedCourseBatch, NewCourseBatch},
};
use uuid::Uuid;

use crate::system::{Gateway, JWT_SECRET, System, answer, token};
use listener::{Event, Listener, Said};

mod listener;

/// Far less than any sweep takes: whoever hears sooner was told live.
const LIVE: Duration = Duration::from_secs(30);
/// No sweep while the test lasts.
const NO_SWEEPS: [(&str, &str); 1] = [("REGISTRAR__LIVE__STREAM_SWEEP_MS", "3600000")];

struct Payer {
    id: Uuid,
    token: String,
    registration: Uuid,
}

async fn payers(sandbox: &Sandbox, number: usize) -> (InsertedCourseBatch, Vec<Payer>) {
    let batch = NewCourseBatch::of(10).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "payer", number).await;
    let ids: Vec<Uuid> = students.iter().map(|student| student.id).collect();
    let registrations = fixtures::registrations(&sandbox.db, &batch, &ids, "seat_held").await;
    let payer = |(id, registration)| Payer { id, token: token(id, Role::Student), registration };
    (batch, ids.into_iter().zip(registrations).map(payer).collect())
}

/// Posts a payment; answers its operation.
async fn pay(gateway: &Gateway, payer: &Payer, batch: &InsertedCourseBatch, reference: &str) -> String {
    let body = json!({
        "registration_id": payer.registration,
        "method": "upi",
        "transaction_id": reference,
        "amount": batch.amount_due.to_string(),
        "currency": batch.currency,
    });
    let accepted = answer(gateway.post("/v1/payments").bearer_auth(&payer.token).json(&body)).await.expect(202);
    accepted["id"].as_str().expect("an id").to_owned()
}

/// So many settled operations, as a worker writes them, so many seconds ago. Nobody tells of them.
async fn settle_silently(db: &PgPool, user_id: Uuid, number: i32, seconds_ago: f64) -> HashSet<String> {
    let kinds: Vec<String> = (0..number).map(|n| format!("silent.{}.{n}", new_id().simple())).collect();
    sqlx::query(
        "INSERT INTO operations (id, kind, principal, fingerprint, state, outcome, accepted_at, settled_at)
         SELECT gen_random_uuid(), kind, 'student:' || $1, decode(repeat('00', 16), 'hex'), 'succeeded', '{}', now(),
                now() - make_interval(secs => $3)
           FROM UNNEST($2::text[]) AS new (kind)",
    )
    .bind(user_id.to_string())
    .bind(&kinds)
    .bind(seconds_ago)
    .execute(db)
    .await
    .expect("the rows keep the table's checks");
    kinds.into_iter().collect()
}

/// So many notifications with a body of this length. Nobody tells of them.
async fn notify_silently(db: &PgPool, user_id: Uuid, number: i32, body_chars: i32) {
    sqlx::query(
        "INSERT INTO notifications (id, user_id, type, title, body, dedupe_key, operation_id, created_at)
         SELECT gen_random_uuid(), $1, 'silent', 'Silent', repeat('x', $3), gen_random_uuid()::text, gen_random_uuid(),
                now() + make_interval(secs => n / 1e6)
           FROM generate_series(1, $2) AS n",
    )
    .bind(user_id)
    .bind(number)
    .bind(body_chars)
    .execute(db)
    .await
    .expect("the rows keep the table's checks");
}

/// Listens until all these kinds were told.
async fn hear_all(listener: &mut Listener, mut kinds: HashSet<String>) -> Vec<Event> {
    let mut heard = Vec::new();
    while !kinds.is_empty() {
        let event = listener.next(LIVE).await;
        kinds.remove(event.data["kind"].as_str().unwrap_or_default());
        heard.push(event);
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_at_another_gateway_receives_the_events_of_its_user_alone() {
    let sandbox = Sandbox::new("events across").await;
    let (batch, payers) = payers(&sandbox, 2).await;
    let [asha, bela] = &payers[..] else { panic!("two") };
    let accountant = fixtures::user(&sandbox.db, &sandbox.email("accountant"), Role::Accountant).await;
    let system = System::of(&sandbox);
    let (mut first, mut second) = tokio::join!(system.gateway(&NO_SWEEPS), system.gateway(&NO_SWEEPS));
    tokio::join!(first.listens(), second.listens());
    let mut workers = system.workers("all").await;
    let mut asha_hears = Listener::new(&second, &asha.token).await;
    let mut bela_hears = Listener::new(&second, &bela.token).await;
    let mut staff_hears = Listener::new(&second, &token(accountant.id, Role::Accountant)).await;

    let operation = pay(&first, asha, &batch, "UTR 1").await;
    let mut told = [asha_hears.next(LIVE).await, asha_hears.next(LIVE).await];
    told.sort_by(|one, other| other.name.cmp(&one.name));
    let path = format!("/v1/operations/{operation}");
    let shown = answer(first.get(&path).bearer_auth(&asha.token)).await.expect(200);
    let listed = answer(first.get("/v1/notifications").bearer_auth(&asha.token)).await.expect(200);
    assert_eq!((told[0].name.as_str(), &told[0].data), ("operation", &shown));
    assert_eq!((told[1].name.as_str(), &told[1].data), ("notification", &listed["items"][0]));

    // Another's reference is refused, and the accountants are told: it comes first of all that Bela and they hear.
    let refused = pay(&first, bela, &batch, "UTR 1").await;
    let event = bela_hears.next(LIVE).await;
    assert_eq!((event.name.as_str(), event.data["id"].as_str()), ("operation", Some(refused.as_str())));
    assert_eq!(event.data["state"], "rejected", "{event:?}");
    assert_eq!(staff_hears.next(LIVE).await.name, "notification");
    sandbox.assert_drained().await;
    for process in [&mut first.process, &mut second.process, &mut workers] {
        assert!(process.terminate().await.success());
    }
    asha_hears.end(Duration::ZERO).await;
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_reconnects_receives_all_that_it_missed() {
    let sandbox = Sandbox::new("events missed").await;
    let (batch, payers) = payers(&sandbox, 1).await;
    let asha = &payers[0];
    let system = System::of(&sandbox);
    let (mut gateway, mut workers) = tokio::join!(system.gateway(&NO_SWEEPS), system.workers("all"));
    gateway.listens().await;
    let old = settle_silently(&sandbox.db, asha.id, 3, 7_200.0).await;
    let mut listener = Listener::new(&gateway, &asha.token).await;
    pay(&gateway, asha, &batch, "UTR 2").await;
    let position = listener.next(LIVE).await.id;
    drop(listener);

    // More than a page, and what a long transaction wrote: it began before the position and was committed after it.
    let mut missed = settle_silently(&sandbox.db, asha.id, 250, 0.0).await;
    missed.extend(settle_silently(&sandbox.db, asha.id, 1, 20.0).await);
    notify_silently(&sandbox.db, asha.id, 150, 10).await;
    let mut listener = Listener::from(&gateway, &asha.token, Some(&position)).await;
    let heard = hear_all(&mut listener, missed.clone()).await;
    assert!(heard.iter().all(|event| !old.contains(event.data["kind"].as_str().unwrap_or_default())));
    let mut notifications = heard.iter().filter(|event| event.name == "notification").count();
    while notifications < 151 {
        assert_eq!(listener.next(LIVE).await.name, "notification");
        notifications += 1;
    }
    // Once each, in this stream; the position has moved, so that little is repeated the next time.
    let ids: HashSet<&Value> = heard.iter().map(|event| &event.data["id"]).collect();
    assert_eq!(ids.len(), heard.len());
    assert!(listener.last_id > position, "{} after {position}", listener.last_id);

    // A day later, or with an id that is none, there is no telling: the client is sent to the lists.
    for id in ["1", "no id of ours"] {
        let mut listener = Listener::from(&gateway, &asha.token, Some(id)).await;
        assert_eq!(listener.next(LIVE).await.name, "reset");
    }
    sandbox.assert_drained().await;
    assert!(workers.terminate().await.success() && gateway.process.terminate().await.success());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stream_lives_and_a_sweep_finds_lost_events() {
    let sandbox = Sandbox::new("events quiet").await;
    let student = fixtures::user(&sandbox.db, &sandbox.email("asha"), Role::Student).await;
    let system = System::of(&sandbox);
    let settings = [
        ("REGISTRAR__LIVE__HEARTBEAT_MS", "300"),
        ("REGISTRAR__LIVE__STREAM_SWEEP_MS", "1000"),
        // A stream is no idle connection.
        ("REGISTRAR__LIMITS__IDLE_MS", "500"),
    ];
    let mut gateway = system.gateway(&settings).await;
    let mut listener = Listener::new(&gateway, &token(student.id, Role::Student)).await;
    let began = listener.last_id.clone();
    while listener.comments < 5 {
        assert_eq!(listener.said().await, Said::Nothing);
    }
    for _ in 0..2 {
        let kinds = settle_silently(&sandbox.db, student.id, 2, 0.0).await;
        assert_eq!(hear_all(&mut listener, kinds).await.len(), 2, "each is told once");
    }
    assert!(listener.last_id > began);
    let queries = gateway.metric("gateway_live_queries_total{read=\"ids\"}").await;
    assert_eq!(queries, 0.0, "nobody told");
    assert!(gateway.process.terminate().await.success());
    listener.end(Duration::ZERO).await;
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_sign_in_and_with_its_token() {
    // Long enough to connect with it on a busy machine.
    const LIFETIME_SECS: i64 = 8;
    /// What a gateway lets requests take at its end by default: a stream that held it up would do so for this long.
    const DRAIN: Duration = Duration::from_secs(22);
    let sandbox = Sandbox::new("events end").await;
    let student = fixtures::user(&sandbox.db, &sandbox.email("asha"), Role::Student).await;
    let system = System::of(&sandbox);
    let (mut first, mut second) = tokio::join!(system.gateway(&NO_SWEEPS), system.gateway(&NO_SWEEPS));
    tokio::join!(first.listens(), second.listens());
    let unknown = answer(first.get("/v1/events")).await.expect(401);
    assert_eq!(unknown["type"], "/problems/unauthenticated");
    answer(first.get("/v1/events").bearer_auth("a.b.c")).await.expect(401);

    let (ended, other) = (token(student.id, Role::Student), token(student.id, Role::Student));
    let mut here = Listener::new(&first, &ended).await;
    let mut there = Listener::new(&second, &ended).await;
    let mut another = Listener::new(&second, &other).await;
    let mut brief = Listener::new(&second, &short_lived(student.id, LIFETIME_SECS)).await;
    answer(first.post("/v1/auth/logout").bearer_auth(&ended)).await.expect(204);
    here.end(Duration::from_secs(5)).await;
    there.end(Duration::from_secs(5)).await;
    brief.end(Duration::from_secs(5) + Duration::from_secs(LIFETIME_SECS.unsigned_abs())).await;
    let quiet = tokio::time::timeout(Duration::from_secs(1), another.end(LIVE)).await;
    assert!(quiet.is_err(), "another sign-in of the same user goes on");
    eventually("places are given back", LIVE, || async {
        first.metric("gateway_streams").await == 0.0 && second.metric("gateway_streams").await == 1.0
    })
    .await;
    for gateway in [&mut first, &mut second] {
        let asked = Instant::now();
        assert!(gateway.process.terminate().await.success());
        assert!(asked.elapsed() < DRAIN, "streams do not hold the end up: {:?}", asked.elapsed());
    }
    another.end(Duration::ZERO).await;
    sandbox.close().await;
}

fn short_lived(user_id: Uuid, lifetime_secs: i64) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(kid("HS256", JWT_SECRET.as_bytes()));
    let claims = AccessClaims::new(user_id, Role::Student, Uuid::now_v7(), chrono::Utc::now(), lifetime_secs);
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).expect("claims are plain JSON")
}

/// Memory of a gateway.
fn resident_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim_end_matches(" kB").trim().parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_little_and_loses_nothing() {
    const ROWS: i32 = 20_000;
    let sandbox = Sandbox::new("events slow").await;
    let student = fixtures::user(&sandbox.db, &sandbox.email("asha"), Role::Student).await;
    let mut gateway = System::of(&sandbox).gateway(&NO_SWEEPS).await;
    let token = token(student.id, Role::Student);
    let position = Listener::new(&gateway, &token).await.first_position().await;
    // 100 MB: more than sockets hold.
    notify_silently(&sandbox.db, student.id, ROWS, 5_000).await;
    let at_first = resident_kib(&gateway);
    let mut lazy = Vec::new();
    for _ in 0..2 {
        lazy.push(Listener::from(&gateway, &token, Some(&position)).await);
    }
    let sent = async || gateway.metric("gateway_events_total{event=\"notification\"}").await;
    let before = eventually("sockets are full", LIVE * 3, || async {
        let before = sent().await;
        tokio::time::timeout(Duration::from_millis(700), std::future::pending::<()>()).await.ok();
        (before > 0.0 && sent().await == before).then_some(before)
    })
    .await;
    assert!(before < f64::from(ROWS) * 1.5, "of twice {ROWS}: {before}");
    let grown = resident_kib(&gateway).saturating_sub(at_first);
    assert!(grown < 32 * 1_024, "{grown} KiB for two who do not read");
    let (mut ids, slow) = (HashSet::new(), &mut lazy[0]);
    while ids.len() < ROWS as usize {
        let event = slow.next(LIVE).await;
        assert!(ids.insert(event.data["id"].as_str().expect("an id").to_owned()), "twice");
    }
    drop(lazy);
    assert!(gateway.process.terminate().await.success());
    sandbox.close().await;
}
