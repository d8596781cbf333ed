//! PDFs: an invoice is rendered and mailed once, and the row of its file always has its object.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use contracts::{Principal, messages::RenderInvoice};
use testkit::{Mailbox, Sandbox};
use workers::invoicing::IssueInvoiceHandler;

use crate::{
    invoicing::{approved, issue},
    registrations::{done, settle},
    support::{Workers, count, event, publisher, settings, settled},
};

#[tokio::test]
async fn an_invoice_is_rendered_and_mailed_once_whatever_is_delivered_again() {
    let sandbox = Sandbox::new("rendered_once").await;
    let handler = IssueInvoiceHandler::new(&settings(&sandbox).institute);
    let payment = approved(&sandbox, 1).await[0];
    let issued = settle(&sandbox.db, &handler, &[issue(payment)]).await;
    let (invoice_id, number) = (done(&issued[0]).invoice_id, done(&issued[0]).number.clone());
    let publisher = publisher(&sandbox).await;
    let workers = Workers::of(&sandbox);
    let mut process = workers.start("documents,email").await;
    let render = event(Principal::System, &RenderInvoice { invoice_id });
    publisher.publish(render.clone()).await.unwrap();
    let (state, outcome) = settled(&sandbox, render.id).await;
    assert_eq!(state, "succeeded", "{outcome}");

    let file = "SELECT f.object_key, f.file_name, f.mime, f.size_bytes
                  FROM files f JOIN invoices i ON i.pdf_file_id = f.id WHERE i.id = $1";
    let (key, name, mime, size): (String, String, String, i64) =
        sqlx::query_as(file).bind(invoice_id).fetch_one(&sandbox.db).await.unwrap();
    assert_eq!((name, mime), (format!("{number}.pdf"), "application/pdf".to_owned()));
    let path = std::env::temp_dir().join(format!("registrar-files-{}", sandbox.vhost)).join(&key);
    let pdf = std::fs::read(&path).unwrap();
    assert!(pdf.starts_with(b"%PDF-") && i64::try_from(pdf.len()).unwrap() == size);
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();

    let asked_anew = event(Principal::System, &RenderInvoice { invoice_id });
    publisher.publish_all([render.clone(), render, asked_anew.clone()]).await.unwrap();
    assert_eq!(settled(&sandbox, asked_anew.id).await.0, "succeeded");
    let address: String =
        sqlx::query_scalar("SELECT u.email::text FROM users u JOIN invoices i ON i.student_id = u.id")
            .fetch_one(&sandbox.db)
            .await
            .unwrap();
    let mail = Mailbox::new().wait_for_mail(&address, &number).await;
    assert_eq!(mail.attachments.len(), 1);
    let attached = Mailbox::new().attachment(&mail, &mail.attachments[0]).await;
    assert!(attached == pdf && mail.attachments[0].file_name == format!("{number}.pdf"));
    sandbox.assert_drained().await;
    assert!(process.terminate().await.success());
    assert_eq!(count(&sandbox, "SELECT count(*) FROM files").await, 1);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "the object is not written again");
    assert_eq!(Mailbox::new().mails_to(&address).await.len(), 1, "both requests mean the same mail");
    sandbox.close().await;
}
