//! Every event delivered ten times, also twice in one array and to two processes at once: one effect each.

use contracts::{
    NewEvent, Partitions, Principal,
    envelope::join_events,
    messages::{
        CancelRegistration, ConfirmRegistration, DecidePayment, PaymentDecision, Registrant, SubmitPayment,
        SubmitRegistration,
    },
};
use testkit::{Mailbox, Sandbox, fixtures, fixtures::NewCourseBatch};
use uuid::Uuid;

use crate::support::{Workers, accountant, count, event, settled, student};

const PARTITIONS: &str = "REGISTRAR__PARTITIONS__PAYMENTS";

/// Four arrays of two and two of one, so that both processes get some of each.
async fn ten_times(sandbox: &Sandbox, partitions: Partitions, new: &NewEvent) {
    let queue = new.work_queue(partitions).to_string();
    let twice = join_events([&new.bytes, &new.bytes].into_iter());
    let once = join_events([&new.bytes].into_iter());
    for body in [&twice, &once, &twice, &twice, &once, &twice] {
        sandbox.publish_raw("commands", &queue, body).await;
    }
}

async fn id_of(sandbox: &Sandbox, operation: Uuid, key: &str) -> Uuid {
    let (state, outcome) = settled(sandbox, operation).await;
    assert_eq!(state, "succeeded", "{outcome}");
    outcome["result"][key].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no {key} in {outcome}"))
}

/// A visitor's whole way, every command ten times, with these settings; answers what is wrong then.
async fn whole_way(test: &str, settings: &[(&str, &str)]) -> Vec<String> {
    let split = settings.iter().find(|(key, _)| *key == PARTITIONS).map_or("1", |(_, payments)| payments);
    let partitions = Partitions::of_payments(split.parse().expect("a number")).expect("not too many");
    let sandbox = Sandbox::new(test).await;
    let batch = NewCourseBatch::of(5).insert(&sandbox.db).await;
    let cashier = fixtures::user(&sandbox.db, &sandbox.email("cashier"), contracts::Role::Accountant).await;
    let publisher = crate::support::publisher(&sandbox).await;
    drop(publisher);
    let workers = Workers::of(&sandbox);
    let (mut first, mut second, mut renderer, mut other_renderer) = tokio::join!(
        workers.start_with("all", settings),
        workers.start_with("all", settings),
        workers.renderer_with(settings),
        workers.renderer_with(settings),
    );

    let email = sandbox.email("asha");
    let visitor = |email: &str| SubmitRegistration {
        batch_id: batch.id,
        registrant: Registrant::Visitor { email: email.to_owned(), full_name: "Asha Rao".into(), phone: None },
        answers: None,
    };
    let register = event(Principal::Anonymous, &visitor(&email));
    ten_times(&sandbox, partitions, &register).await;
    let registration_id = id_of(&sandbox, register.id, "registration_id").await;
    let student_id: Uuid = sqlx::query_scalar("SELECT student_id FROM student_registrations")
        .fetch_one(&sandbox.db)
        .await
        .expect("exactly one registration");
    let confirm = event(student(student_id), &ConfirmRegistration { registration_id, student_id });
    ten_times(&sandbox, partitions, &confirm).await;
    settled(&sandbox, confirm.id).await;
    let pay = SubmitPayment {
        registration_id,
        student_id,
        amount: batch.amount_due,
        currency: batch.currency.to_owned(),
        ..<SubmitPayment as contracts::Command>::example()
    };
    let pay = event(student(student_id), &pay);
    ten_times(&sandbox, partitions, &pay).await;
    let payment_id = id_of(&sandbox, pay.id, "payment_id").await;
    let approve = DecidePayment { payment_id, decision: PaymentDecision::Approve, note: None };
    let approve = event(accountant(cashier.id), &approve);
    ten_times(&sandbox, partitions, &approve).await;
    settled(&sandbox, approve.id).await;
    let other = event(Principal::Anonymous, &visitor(&sandbox.email("ravi")));
    ten_times(&sandbox, partitions, &other).await;
    let registration_id = id_of(&sandbox, other.id, "registration_id").await;
    let ravi: Uuid = sqlx::query_scalar("SELECT student_id FROM student_registrations WHERE id = $1")
        .bind(registration_id)
        .fetch_one(&sandbox.db)
        .await
        .expect("the registration is there");
    let cancel = event(student(ravi), &CancelRegistration { registration_id, reason: None });
    ten_times(&sandbox, partitions, &cancel).await;
    settled(&sandbox, cancel.id).await;
    Mailbox::new().wait_for_mail(&email, "approved").await;
    sandbox.assert_drained().await;

    let findings = findings(&sandbox, &email).await;
    for process in [&mut first, &mut second, &mut renderer, &mut other_renderer] {
        assert!(process.terminate().await.success());
    }
    sandbox.close().await;
    findings
}

async fn findings(sandbox: &Sandbox, email: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (what, query, expected) in [
        ("users", "SELECT count(*) FROM users WHERE role = 'student'", 2),
        ("registrations", "SELECT count(*) FROM student_registrations", 2),
        ("magic links", "SELECT count(*) FROM user_tokens", 2),
        ("payments", "SELECT count(*) FROM payments", 1),
        ("enrollments", "SELECT count(*) FROM enrollments", 1),
        ("seats taken", "SELECT seats_taken::bigint FROM batches", 1),
        ("invoices", "SELECT count(*) FROM invoices", 1),
        ("invoice lines", "SELECT count(*) FROM invoice_lines", 1),
        ("next invoice number", "SELECT next_seq FROM invoice_series WHERE kind = 'invoice'", 2),
        ("PDFs", "SELECT count(*) FROM files", 1),
        ("dead letters", "SELECT count(*) FROM dead_letters", 0),
        (
            "payments counted twice",
            "SELECT count(*) FROM student_registrations WHERE amount_paid NOT IN (0, amount_due)",
            0,
        ),
        (
            "operations audited twice",
            "SELECT count(*) FROM (SELECT operation_id, action, entity_id FROM audit_logs WHERE operation_id IS NOT NULL
               GROUP BY 1, 2, 3 HAVING count(*) > 1) AS twice",
            0,
        ),
        (
            "unsent mails",
            "SELECT count(*) FROM email_logs WHERE status <> 'sent'",
            0,
        ),
        (
            "mails sent twice",
            "SELECT count(*) FROM email_logs WHERE attempts > 1",
            0,
        ),
    ] {
        let found = count(sandbox, query).await;
        if found != expected {
            findings.push(format!("{what}: {found} instead of {expected}"));
        }
    }
    let mails = Mailbox::new().mails_to(email).await;
    let logged: i64 = sqlx::query_scalar("SELECT count(*) FROM email_logs WHERE to_email = $1::text::citext")
        .bind(email)
        .fetch_one(&sandbox.db)
        .await
        .expect("mails can be counted");
    if i64::try_from(mails.len()).ok() != Some(logged) {
        findings.push(format!("{} mails received for {logged} logged", mails.len()));
    }
    findings
}

#[tokio::test]
async fn every_event_ten_times_has_one_effect() {
    assert_eq!(whole_way("duplicates", &[]).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_same_holds_where_the_queue_of_payments_is_split() {
    assert_eq!(whole_way("duplicates_split", &[(PARTITIONS, "4")]).await, Vec::<String>::new());
}

/// The tests above bite: without the inbox, effects double, and they would be red.
#[tokio::test]
async fn the_bug_inbox_off_is_noticed() {
    let findings = whole_way("bug_inbox_off", &[("REGISTRAR__PLANTED", "inbox_off")]).await;
    assert!(!findings.is_empty());
}
