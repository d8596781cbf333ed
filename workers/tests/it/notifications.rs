//! Lines in the inboxes: one a user and dedupe key, whatever is settled together.

use contracts::{
    Principal, Role, ids,
    messages::{CreateNotification, create_notification::NotificationTarget},
};
use serde_json::json;
use testkit::{Sandbox, Statements, fixtures};
use workers::{notifications::CreateNotificationHandler, runtime::Delivery};

use crate::{
    registrations::{delivery, settle},
    support::count,
};

fn tell(to: NotificationTarget, title: &str, dedupe_key: &str) -> Delivery<CreateNotification> {
    delivery(
        Principal::System,
        CreateNotification {
            to,
            notification_type: "announcement".into(),
            title: title.to_owned(),
            body: "Class begins at nine.".into(),
            data: json!({}).into(),
            dedupe_key: dedupe_key.to_owned(),
        },
    )
}

#[tokio::test]
async fn a_user_addressed_twice_is_notified_once_and_the_first_text_counts() {
    let sandbox = Sandbox::new("told_once").await;
    let handler = CreateNotificationHandler;
    let emails: Vec<String> = (0..3).map(|n| format!("cashier{n}@example.org")).collect();
    let cashiers = fixtures::users(&sandbox.db, &emails, Role::Accountant).await;
    let student = fixtures::user(&sandbox.db, "asha@example.org", Role::Student).await;
    let leave = "UPDATE users SET status = 'suspended' WHERE id = $1";
    sqlx::query(leave).bind(cashiers[2].id).execute(&sandbox.db).await.expect("a user may be suspended");
    let deliveries = [
        tell(NotificationTarget::User(student.id), "first", "a"),
        tell(NotificationTarget::User(student.id), "second", "a"),
        tell(NotificationTarget::Role(Role::Accountant), "to all", "b"),
        tell(NotificationTarget::User(cashiers[0].id), "to one of them", "b"),
        tell(NotificationTarget::User(ids::new_id()), "to nobody", "c"),
    ];
    for _ in 0..2 {
        let outcomes = settle(&sandbox.db, &handler, &deliveries).await;
        assert!(outcomes.iter().all(|outcome| outcome.state() == "succeeded"));
    }
    let redelivered = [tell(NotificationTarget::Role(Role::Accountant), "to all again", "b")];
    settle(&sandbox.db, &handler, &redelivered).await;
    let told: Vec<(uuid::Uuid, String)> =
        sqlx::query_as("SELECT user_id, title FROM notifications ORDER BY dedupe_key, user_id")
            .fetch_all(&sandbox.db)
            .await
            .expect("notifications can be read");
    let mut expected = vec![(student.id, "first".to_owned())];
    let mut active = [cashiers[0].id, cashiers[1].id];
    active.sort();
    expected.extend(active.map(|id| (id, "to all".to_owned())));
    assert_eq!(told, expected, "the suspended one is not told");
    sandbox.close().await;
}

#[tokio::test]
async fn the_number_of_statements_does_not_depend_on_the_number_of_deliveries() {
    let sandbox = Sandbox::new("statements_of_notifications").await;
    let handler = CreateNotificationHandler;
    let students = fixtures::students(&sandbox.db, "told", 258).await;
    let statements = Statements::record();
    let mut counts = Vec::new();
    for range in [0..2, 2..258] {
        let deliveries: Vec<_> =
            students[range].iter().map(|student| tell(NotificationTarget::User(student.id), "told", "a")).collect();
        statements.take();
        settle(&sandbox.db, &handler, &deliveries).await;
        counts.push(statements.take().len());
    }
    assert_eq!(counts, [1, 1]);
    assert_eq!(count(&sandbox, "SELECT count(*) FROM notifications").await, 258);
    sandbox.close().await;
}
