//! PDFs: an invoice is rendered and mailed once, and the row of its file always has its object.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::{path::PathBuf, time::Duration};

use chrono::Utc;
use contracts::{
    Command, NewEvent, Principal, Role, TraceParent,
    amqp::{AmqpSettings, Publisher},
    envelope::Origin,
    ids::new_id,
    messages::{DecidePayment, PaymentDecision, RenderInvoice},
};
use testkit::{
    Mailbox, Process, Sandbox, eventually,
    fixtures::{self, NewCourseBatch},
    free_port,
};
use uuid::Uuid;

const SETTLED_LIMIT: Duration = Duration::from_secs(60);

fn files(sandbox: &Sandbox) -> PathBuf {
    std::env::temp_dir().join(format!("registrar-files-{}", sandbox.vhost))
}

/// Starts a program and waits until it consumes.
async fn start(sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Process {
    let port = free_port();
    let env = [
        ("REGISTRAR__ENVIRONMENT", "development".to_owned()),
        ("REGISTRAR__PUBLIC_URL", "http://127.0.0.1:9".to_owned()),
        ("REGISTRAR__METRICS_LISTEN", format!("127.0.0.1:{port}")),
        ("REGISTRAR__DATABASE__URL", sandbox.workers_url()),
        ("REGISTRAR__AMQP__URL", sandbox.amqp_url()),
        ("REGISTRAR__SMTP__URL", testkit::setting("SMTP_URL")),
        ("REGISTRAR__FILES__URL", format!("file://{}", files(sandbox).display())),
        ("REGISTRAR__SECRETS__TOKENS", "test-secret-of-mailed-tokens-0123456789".to_owned()),
        ("REGISTRAR__SECRETS__JWT_HS256", "test-secret-of-access-tokens-0123456789".to_owned()),
        ("REGISTRAR__LOG__FORMAT", "pretty".to_owned()),
    ];
    let mut process = Process::start(program, arguments, env);
    process.wait_ready(&format!("http://127.0.0.1:{port}/health/ready")).await;
    process
}

/// An event as the gateway makes it.
fn event<C: Command>(principal: Principal, command: &C) -> NewEvent {
    let origin =
        Origin { source: "/test", principal, accepted_at: Utc::now(), trace: TraceParent::new(), parent: None };
    NewEvent::new(new_id(), command, &origin)
}

/// The approval of a payment by an accountant, and the student's address.
async fn approval(sandbox: &Sandbox) -> (NewEvent, String) {
    let batch = NewCourseBatch::of(1).insert(&sandbox.db).await;
    let student = fixtures::user(&sandbox.db, &sandbox.email("payer"), Role::Student).await;
    let accountant = fixtures::user(&sandbox.db, &sandbox.email("accountant"), Role::Accountant).await;
    let registration = fixtures::registration(&sandbox.db, &batch, student.id, "seat_held").await;
    let reference = format!("UTR-{}", batch.id.simple());
    let payment_id = fixtures::payment(&sandbox.db, registration, &reference, batch.amount_due).await;
    let principal = Principal::User { id: accountant.id, role: Role::Accountant };
    let approve = DecidePayment { payment_id, decision: PaymentDecision::Approve, note: None };
    (event(principal, &approve), sandbox.email("payer"))
}

async fn succeeded(sandbox: &Sandbox, id: Uuid) {
    let state: String = eventually("the operation is settled", SETTLED_LIMIT, || async {
        let state = sqlx::query_scalar("SELECT state FROM operations WHERE id = $1").bind(id);
        state.fetch_optional(&sandbox.db).await.expect("operations can be read")
    })
    .await;
    assert_eq!(state, "succeeded");
}

#[tokio::test]
async fn an_invoice_is_rendered_and_mailed_once_whatever_is_delivered_again() {
    let sandbox = Sandbox::new("rendered_once").await;
    let publisher = Publisher::start(AmqpSettings::new(sandbox.amqp_url(), "test"));
    assert!(publisher.wait_connected(Duration::from_secs(20)).await, "the broker is up");
    let (approval, address) = approval(&sandbox).await;
    let mut workers = start(&sandbox, "workers", &["run"]).await;
    let mut renderer = start(&sandbox, "renderer", &["run"]).await;
    publisher.publish(approval).await.unwrap();

    let query = "SELECT i.id, i.number, f.object_key, f.file_name, f.mime, f.size_bytes
                   FROM invoices i JOIN files f ON f.id = i.pdf_file_id";
    let (invoice_id, number, key, name, mime, size): (Uuid, String, String, String, String, i64) =
        eventually("the invoice has its PDF", SETTLED_LIMIT, || async {
            sqlx::query_as(query).fetch_optional(&sandbox.db).await.expect("files can be read")
        })
        .await;
    assert_eq!((name, mime), (format!("{number}.pdf"), "application/pdf".to_owned()));
    let path = files(&sandbox).join(&key);
    let pdf = std::fs::read(&path).unwrap();
    assert!(pdf.starts_with(b"%PDF-") && i64::try_from(pdf.len()).unwrap() == size);
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();

    let (twice, once) = (RenderInvoice { invoice_id }, RenderInvoice { invoice_id });
    let (twice, once) = (event(Principal::System, &twice), event(Principal::System, &once));
    publisher.publish_all([twice.clone(), twice.clone(), once.clone()]).await.unwrap();
    succeeded(&sandbox, twice.id).await;
    succeeded(&sandbox, once.id).await;
    let mail = Mailbox::new().wait_for_mail(&address, &number).await;
    assert_eq!(mail.attachments.len(), 1);
    let attached = Mailbox::new().attachment(&mail, &mail.attachments[0]).await;
    assert!(attached == pdf && mail.attachments[0].file_name == format!("{number}.pdf"));
    sandbox.assert_drained().await;
    assert!(renderer.terminate().await.success() && workers.terminate().await.success());
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM files").fetch_one(&sandbox.db).await.unwrap();
    assert_eq!(count, 1);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "the object is not written again");
    let mails = Mailbox::new().mails_to(&address).await;
    let with_the_invoice = mails.iter().filter(|mail| !mail.attachments.is_empty()).count();
    assert_eq!(with_the_invoice, 1, "all requests mean the same mail");
    std::fs::remove_dir_all(files(&sandbox)).ok();
    sandbox.close().await;
}
