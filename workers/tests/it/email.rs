//! Mails: one a dedupe key, recognisable when repeated, traceable, and nobody else's trouble when the mail server is away.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use contracts::{
    Principal, Role, ids,
    messages::{CreateNotification, EmailTemplate, SendEmail, create_notification::NotificationTarget},
    tokens::MailTokens,
};
use serde_json::json;
use sqlx::PgPool;
use testkit::{Mailbox, Proxy, Sandbox, eventually, fixtures};
use workers::{
    email::{SendEmailHandler, send_email::ClaimedMail},
    file_store::FileStore,
    runtime::{Claim, Delivery, Effect, Failure},
};

use crate::{
    registrations::delivery,
    support::{SETTLED_LIMIT, Workers, count, event, publisher, put_off, settings},
};

pub fn mail(to_email: &str, dedupe_key: &str) -> SendEmail {
    SendEmail {
        to_email: to_email.to_owned(),
        to_name: Some("Asha Rao".into()),
        user_id: None,
        template: EmailTemplate::PaymentReceived,
        locale: "en".into(),
        context: json!({ "name": "Asha Rao", "amount": "11800.00", "currency": "INR", "transaction_id": "UTR-1" })
            .into(),
        token_id: None,
        attachment_file_id: None,
        dedupe_key: dedupe_key.to_owned(),
    }
}

fn to_send(mail: SendEmail) -> Delivery<SendEmail> {
    delivery(Principal::System, mail)
}

fn sender(sandbox: &Sandbox) -> SendEmailHandler {
    let settings = settings(sandbox);
    SendEmailHandler::new(&settings, FileStore::open(&settings.files).unwrap()).unwrap()
}

async fn claim(db: &PgPool, sender: &SendEmailHandler, deliveries: &[Delivery<SendEmail>]) -> Vec<Claim<ClaimedMail>> {
    let mut tx = db.begin().await.unwrap();
    let claims = sender.claim(&mut tx, deliveries).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(claims.len(), deliveries.len());
    claims
}

fn ours(claim: &Claim<ClaimedMail>) -> &ClaimedMail {
    match claim {
        Claim::Do(work) => work,
        other => panic!("not ours to send: {other:?}"),
    }
}

async fn send_and_mark(db: &PgPool, sender: &SendEmailHandler, delivery: &Delivery<SendEmail>, work: &ClaimedMail) {
    let sent: Result<(), Failure> = sender.perform(delivery, work).await;
    assert!(sent.is_ok(), "{sent:?}");
    let mut tx = db.begin().await.unwrap();
    sender.mark(&mut tx, &[(delivery, work, &sent)]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_live_lease_is_waited_for_and_an_expired_one_repeats_the_same_mail() {
    let sandbox = Sandbox::new("mail_lease").await;
    let (sender, address) = (sender(&sandbox), sandbox.email("lease"));
    let deliveries = [to_send(mail(&address, "lease:1"))];
    let first = claim(&sandbox.db, &sender, &deliveries).await;
    // Its holder dies after the server has taken the mail, before the row is marked.
    sender.perform(&deliveries[0], ours(&first[0])).await.unwrap();
    assert!(matches!(claim(&sandbox.db, &sender, &deliveries).await[0], Claim::Later));
    let lapse = "UPDATE email_logs SET lease_until = now() - interval '1 second'";
    sqlx::query(lapse).execute(&sandbox.db).await.unwrap();

    let another = [to_send(mail(&address, "lease:1"))];
    let second = claim(&sandbox.db, &sender, &another).await;
    send_and_mark(&sandbox.db, &sender, &another[0], ours(&second[0])).await;
    assert!(matches!(claim(&sandbox.db, &sender, &deliveries).await[0], Claim::Done));
    let mails = eventually("both mails are there", SETTLED_LIMIT, || async {
        Some(Mailbox::new().mails_to(&address).await).filter(|mails| mails.len() >= 2)
    })
    .await;
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0].header("message-id"), mails[1].header("message-id"));
    assert_eq!(count(&sandbox, "SELECT attempts::bigint FROM email_logs WHERE status = 'sent'").await, 2);
    sandbox.close().await;
}

#[tokio::test]
async fn a_dedupe_key_is_one_mail_also_when_claimed_together() {
    let sandbox = Sandbox::new("mail_twice").await;
    let (sender, address) = (sender(&sandbox), sandbox.email("twice"));
    let deliveries = ["twice:1", "twice:1", "twice:2"].map(|key| to_send(mail(&address, key)));
    let claims = claim(&sandbox.db, &sender, &deliveries).await;
    assert!(matches!(claims[1], Claim::Later), "its first is under way");
    for n in [0, 2] {
        send_and_mark(&sandbox.db, &sender, &deliveries[n], ours(&claims[n])).await;
    }
    let again = claim(&sandbox.db, &sender, &deliveries).await;
    assert!(again.iter().all(|claim| matches!(claim, Claim::Done)), "{again:?}");
    eventually("both mails are there", SETTLED_LIMIT, || async { Mailbox::new().mails_to(&address).await.len() == 2 })
        .await;
    sandbox.close().await;
}

#[tokio::test]
async fn a_suppressed_address_and_a_user_who_wants_none_get_none() {
    let sandbox = Sandbox::new("mail_suppressed").await;
    let sender = sender(&sandbox);
    let bounced = sandbox.email("bounced");
    let suppress = "INSERT INTO email_suppressions (id, email, reason) VALUES (gen_random_uuid(), upper($1)::citext, 'hard_bounce')";
    sqlx::query(suppress).bind(&bounced).execute(&sandbox.db).await.unwrap();
    let quiet = fixtures::user(&sandbox.db, &sandbox.email("quiet"), Role::Student).await;
    let prefers =
        r#"UPDATE user_profiles SET notify_prefs = '{"email": {"payment_received": false}}' WHERE user_id = $1"#;
    sqlx::query(prefers).bind(quiet.id).execute(&sandbox.db).await.unwrap();
    let unwanted = SendEmail { user_id: Some(quiet.id), ..mail(&quiet.email, "quiet:1") };
    let owed = SendEmail { template: EmailTemplate::PaymentRejected, dedupe_key: "quiet:2".into(), ..unwanted.clone() };
    let deliveries = [mail(&bounced, "bounced:1"), unwanted, owed].map(to_send);
    let claims = claim(&sandbox.db, &sender, &deliveries).await;
    assert!(matches!((&claims[0], &claims[1]), (Claim::Done, Claim::Done)), "{claims:?}");
    ours(&claims[2]);
    assert_eq!(count(&sandbox, "SELECT count(*) FROM email_logs WHERE status = 'suppressed'").await, 2);
    sandbox.close().await;
}

#[tokio::test]
async fn a_mail_bears_the_trace_of_its_event_and_a_link_that_only_our_secret_makes() {
    let sandbox = Sandbox::new("mail_trace").await;
    let publisher = publisher(&sandbox).await;
    let address = sandbox.email("trace");
    let token_id = ids::new_id();
    let wanted =
        SendEmail { template: EmailTemplate::MagicLink, token_id: Some(token_id), ..mail(&address, "trace:1") };
    let event = event(Principal::System, &wanted);
    let sent: serde_json::Value = serde_json::from_slice(&event.bytes).unwrap();
    let trace_id = sent["traceparent"].as_str().unwrap().split('-').nth(1).unwrap().to_owned();
    publisher.publish(event).await.unwrap();
    let mut process = Workers::of(&sandbox).start("email").await;
    let mail = Mailbox::new().wait_for_mail(&address, "").await;
    assert_eq!(mail.header("x-registrar-trace"), Some(trace_id.as_str()));
    assert!(mail.header("traceparent").unwrap().contains(&trace_id));
    let link = mail.link("/magic#token=").unwrap();
    let token = link.split_once("token=").unwrap().1;
    assert_eq!(MailTokens::new(b"test-secret-of-mailed-tokens-0123456789").decode(token), Some(token_id));
    let log = sqlx::query_scalar::<_, String>("SELECT row_to_json(l)::text FROM email_logs l")
        .fetch_one(&sandbox.db)
        .await
        .unwrap();
    assert!(log.contains(&trace_id) && !log.contains(token), "the log knows the trace and no secret: {log}");
    sandbox.assert_drained().await;
    assert!(process.terminate().await.success());
    sandbox.close().await;
}

#[tokio::test]
async fn without_a_mail_server_mails_wait_visibly_and_the_other_pools_go_on() {
    let sandbox = Sandbox::new("mail_server_away").await;
    let publisher = publisher(&sandbox).await;
    let user = fixtures::user(&sandbox.db, &sandbox.email("away"), Role::Student).await;
    let workers = Workers::of(&sandbox);
    let mail_server = testkit::setting("SMTP_URL");
    let proxy = Proxy::start(&mail_server).await;
    proxy.refuse_new(true);
    let behind = proxy.url(&mail_server);
    let settings = [("REGISTRAR__SMTP__URL", behind.as_str())];
    let mut process = workers.start_with("email,notifications", &settings).await;
    let told = CreateNotification {
        to: NotificationTarget::User(user.id),
        ..<CreateNotification as contracts::Command>::example()
    };
    publisher.publish(event(Principal::System, &mail(&user.email, "away:1"))).await.unwrap();
    eventually("the mail waits on the ladder", SETTLED_LIMIT, || async { put_off(&sandbox).await == 1 }).await;
    publisher.publish(event(Principal::System, &told)).await.unwrap();
    eventually("the other pool goes on", SETTLED_LIMIT, || async {
        count(&sandbox, "SELECT count(*) FROM notifications").await == 1
    })
    .await;
    let visible =
        "SELECT count(*) FROM email_logs WHERE status = 'queued' AND last_error <> '' AND lease_until IS NULL";
    // Not while it is being tried again.
    eventually("the mail waits visibly", SETTLED_LIMIT, || async { count(&sandbox, visible).await == 1 }).await;
    proxy.refuse_new(false);
    assert!(process.terminate().await.success());

    let mut process = workers.start_with("email", &settings).await;
    // It may have climbed to the second rung meanwhile.
    eventually("the mail is marked", SETTLED_LIMIT, || async {
        count(&sandbox, "SELECT count(*) FROM email_logs WHERE status = 'sent' AND attempts >= 2").await == 1
    })
    .await;
    Mailbox::new().wait_for_mail(&user.email, "").await;
    sandbox.assert_drained().await;
    assert!(process.terminate().await.success());
    sandbox.close().await;
}
