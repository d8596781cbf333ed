//! The resource kit, seen from outside: scopes, typed filters, cursors, entity tags, edits.

use contracts::Role;
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use testkit::fixtures::{self, NewCourseBatch, User};
use uuid::Uuid;

use crate::served::{Served, answer};

async fn get(served: &Served, path: &str, user: &User) -> Value {
    let (status, body) = answer(served.get(path).bearer_auth(served.token(user))).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn a_teacher_sees_the_own_course_batches_without_money_answers_or_contacts() {
    let served = Served::start("teacher").await;
    let db = &served.sandbox.db;
    let teacher = fixtures::user(db, &served.sandbox.email("teacher"), Role::Teacher).await;
    let other = fixtures::user(db, &served.sandbox.email("other"), Role::Teacher).await;
    let students = fixtures::students(db, "of.teacher", 2).await;
    let (own, foreign) = (NewCourseBatch::of(5).insert(db).await, NewCourseBatch::of(5).insert(db).await);
    sqlx::query("UPDATE batches SET instructor_id = $1 WHERE id = $2")
        .bind(teacher.id)
        .bind(own.id)
        .execute(db)
        .await
        .expect("set");
    let seen = fixtures::registration(db, &own, students[0].id, "seat_held").await;
    let unseen = fixtures::registration(db, &foreign, students[1].id, "seat_held").await;

    let page = get(&served, "/v1/registrations", &teacher).await;
    assert_eq!(ids(&page), [seen.to_string()]);
    let item = page["items"][0].as_object().expect("an object");
    assert_eq!(item["student_name"], "Asha Of");
    for hidden in ["fee", "discount", "tax", "amount_due", "amount_paid", "currency", "answers", "email", "phone"] {
        assert!(!item.contains_key(hidden), "{hidden} is not the teacher's to see");
    }
    assert_eq!(get(&served, &format!("/v1/registrations/{seen}"), &teacher).await["id"], seen.to_string());
    let request = served.get(&format!("/v1/registrations/{unseen}")).bearer_auth(served.token(&teacher));
    assert_eq!(answer(request).await.0, StatusCode::NOT_FOUND);
    assert!(ids(&get(&served, "/v1/registrations", &other).await).is_empty());
    assert!(ids(&get(&served, "/v1/payments", &teacher).await).is_empty());
    assert!(ids(&get(&served, "/v1/enrollments", &teacher).await).is_empty());
    assert_eq!(ids(&get(&served, "/v1/registrations", &students[1]).await), [unseen.to_string()]);
    served.close().await;
}

#[tokio::test]
async fn an_unknown_status_is_a_422_that_lists_the_known_ones_and_each_of_them_is_taken() {
    let served = Served::start("filters").await;
    let admin = fixtures::user(&served.sandbox.db, &served.sandbox.email("admin"), Role::Admin).await;
    let document = get(&served, "/openapi.json", &admin).await;
    let mut filters = 0;
    for path in ["/v1/registrations", "/v1/payments", "/v1/invoices", "/v1/enrollments"] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().expect("parameters");
        let status = parameters.iter().find(|parameter| parameter["name"] == "status").expect("a status");
        let known: Vec<&str> = known_values(&status["schema"]);
        assert!(known.len() >= 2, "{path}: {status}");
        for value in &known {
            get(&served, &format!("{path}?status={value}"), &admin).await;
            filters += 1;
        }
        let request = served.get(&format!("{path}?status=colourful")).bearer_auth(served.token(&admin));
        let (status, problem) = answer(request).await;
        assert_eq!((status.as_u16(), &problem["errors"][0]["field"]), (422, &json!("status")), "{problem}");
        let message = problem["errors"][0]["message"].as_str().expect("a message");
        assert!(known.iter().all(|value| message.contains(value)), "{message}");
    }
    assert!(filters >= 20, "only {filters} values were found");
    served.close().await;
}

/// The values of an enumeration, however the schema nests it.
fn known_values(schema: &Value) -> Vec<&str> {
    match schema {
        Value::Object(members) => members.get("enum").and_then(Value::as_array).map_or_else(
            || members.values().flat_map(known_values).collect(),
            |values| values.iter().filter_map(Value::as_str).collect(),
        ),
        Value::Array(members) => members.iter().flat_map(known_values).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_cursor_survives_the_deletion_of_its_row_and_serves_its_own_list_alone() {
    let served = Served::start("cursors").await;
    let db = &served.sandbox.db;
    let student = fixtures::user(db, &served.sandbox.email("student"), Role::Student).await;
    for n in 0..5 {
        sqlx::query(
            "INSERT INTO notifications (id, user_id, type, title, body, data, dedupe_key, operation_id, created_at)
             VALUES (gen_random_uuid(), $1, 'test', 'Title', 'Body', '{}', $2, gen_random_uuid(),
                     now() - make_interval(mins => $3))",
        )
        .bind(student.id)
        .bind(format!("test:{n}"))
        .bind(n)
        .execute(db)
        .await
        .expect("inserted");
    }
    let all = get(&served, "/v1/notifications", &student).await;
    let first = get(&served, "/v1/notifications?limit=2", &student).await;
    assert_eq!(ids(&first), ids(&all)[..2]);
    let named: Uuid = ids(&first)[1].parse().expect("a UUID");
    sqlx::query("DELETE FROM notifications WHERE id = $1").bind(named).execute(db).await.expect("deleted");
    let cursor = first["next_cursor"].as_str().expect("another page follows");
    let second = get(&served, &format!("/v1/notifications?limit=2&cursor={cursor}"), &student).await;
    assert_eq!(ids(&second), ids(&all)[2..4]);
    let request = served.get(&format!("/v1/operations?cursor={cursor}")).bearer_auth(served.token(&student));
    assert_eq!(answer(request).await.0, StatusCode::BAD_REQUEST);
    served.close().await;
}

fn patch(served: &Served, user: &User, if_match: Option<&str>, change: &Value) -> RequestBuilder {
    let url = format!("http://{}/v1/me", served.gateway.address());
    let request = served.http.request(Method::PATCH, url).bearer_auth(served.token(user)).json(change);
    match if_match {
        Some(tag) => request.header("If-Match", tag),
        None => request,
    }
}

async fn tag_of(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("an answer");
    let tag = response.headers().get(header::ETAG).map(|tag| tag.to_str().expect("ASCII").to_owned());
    (response.status().as_u16(), tag.unwrap_or_default())
}

#[tokio::test]
async fn an_edit_needs_the_version_that_it_was_made_for_and_leaves_its_audit_row() {
    let served = Served::start("edits").await;
    let db = &served.sandbox.db;
    let student = fixtures::user(db, &served.sandbox.email("student"), Role::Student).await;
    let me = || served.get("/v1/me").bearer_auth(served.token(&student));
    let (_, read) = tag_of(me()).await;
    assert!(read.starts_with("\"1."), "{read}");
    assert_eq!(tag_of(me().header("If-None-Match", &read)).await, (304, read.clone()));

    let name = json!({ "given_name": "Asha", "country": "IN" });
    let (status, second) = tag_of(patch(&served, &student, Some(&read), &name)).await;
    assert!(status == 200 && second.starts_with("\"2."), "{status} {second}");
    let (status, problem) = answer(patch(&served, &student, Some(&read), &json!({ "given_name": "Late" }))).await;
    assert_eq!((status.as_u16(), &problem["type"]), (412, &json!("/problems/precondition-failed")));
    // Nothing differs: no version, no audit row.
    assert_eq!(tag_of(patch(&served, &student, Some("*"), &name)).await, (200, second));
    // Today's clients send no If-Match.
    let (status, third) = tag_of(patch(&served, &student, None, &json!({ "country": null }))).await;
    assert!(status == 200 && third.starts_with("\"3."), "{status} {third}");
    assert_eq!(answer(patch(&served, &student, Some("3"), &name)).await.0, StatusCode::BAD_REQUEST);

    let rows: Vec<(Uuid, Value, Value)> = sqlx::query_as(
        "SELECT actor_id, before, after FROM audit_logs WHERE action = 'profile.edit' AND entity_id = $1 ORDER BY occurred_at",
    )
    .bind(student.id)
    .fetch_all(db)
    .await
    .expect("read");
    let expected = [
        (student.id, json!({ "given_name": null, "country": null }), json!({ "given_name": "Asha", "country": "IN" })),
        (student.id, json!({ "country": "IN" }), json!({ "country": null })),
    ];
    assert_eq!(rows, expected);
    served.close().await;
}
