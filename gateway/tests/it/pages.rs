//! Lists, page by page: every row once, newest first, under every filter and for whom it is.

use std::collections::BTreeMap;

use contracts::Role;
use serde_json::Value;
use testkit::fixtures::{self, NewCourseBatch, User};
use uuid::Uuid;

use crate::served::Served;

/// Ids of all pages of two, in their order.
async fn listed(served: &Served, filter: &str, user: &User) -> Vec<Uuid> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/payments?limit=2{filter}{cursor}");
        let response = served.get(&path).bearer_auth(served.token(user)).send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        let page: Value = response.json().await.expect("JSON");
        let items = page["items"].as_array().expect("items");
        ids.extend(items.iter().map(|item| item["id"].as_str().expect("an id").parse::<Uuid>().expect("a UUID")));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_are_listed_whole_by_status_and_for_whom_they_are() {
    let served = Served::start("pages").await;
    let db = &served.sandbox.db;
    let batch = NewCourseBatch::of(9).insert(db).await;
    let students = fixtures::students(db, &served.sandbox.email("pages").replace('@', "."), 3).await;
    let ids: Vec<Uuid> = students.iter().map(|student| student.id).collect();
    let registrations = fixtures::registrations(db, &batch, &ids, "seat_held").await;
    let claim = |n: usize| (registrations[n % 3], format!("UTR-PAGES-{n}"));
    let claims: Vec<_> = (0..9).map(claim).collect();
    let mut payments = fixtures::payments(db, &claims, "1.00".parse().expect("an amount")).await;
    let owner: BTreeMap<Uuid, usize> = payments.iter().enumerate().map(|(n, id)| (*id, n % 3)).collect();
    payments.sort_unstable_by(|a, b| b.cmp(a));
    let approved: Vec<Uuid> = payments.iter().copied().skip(1).step_by(2).collect();
    sqlx::query("UPDATE payments SET status = 'approved' WHERE id = ANY($1)")
        .bind(&approved)
        .execute(db)
        .await
        .expect("set");
    let submitted: Vec<Uuid> = payments.iter().copied().step_by(2).collect();
    let accountant = fixtures::user(db, &served.sandbox.email("accountant"), Role::Accountant).await;

    assert_eq!(listed(&served, "", &accountant).await, payments);
    assert_eq!(listed(&served, "&status=approved", &accountant).await, approved);
    assert_eq!(listed(&served, "&status=submitted", &accountant).await, submitted);
    assert!(listed(&served, "&status=rejected", &accountant).await.is_empty());
    let of_first = |ids: &[Uuid]| ids.iter().copied().filter(|id| owner[id] == 0).collect::<Vec<_>>();
    let by_registration = format!("&status=approved&registration_id={}", registrations[0]);
    assert_eq!(listed(&served, &by_registration, &accountant).await, of_first(&approved));
    assert_eq!(listed(&served, "", &students[0]).await, of_first(&payments));
    assert_eq!(listed(&served, "&status=approved", &students[0]).await, of_first(&approved));
    served.close().await;
}
