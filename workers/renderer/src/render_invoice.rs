//! Renders each issued invoice as a PDF into the file store, once, and has it mailed. The file's id is derived from the
//! invoice's: a second rendering after a crash writes the same file and the same row.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::NaiveDate;
use contracts::{
    Outcome, RawJson, Verdict, ids, messages,
    messages::{EmailTemplate, SendEmail},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use uuid::Uuid;
use workers::{
    config::Institute,
    file_store::FileStore,
    runtime::{Claim, Delivery, Effect, Failure, FollowUp},
};

use crate::invoice_pdf::InvoicePdf;

/// The time limit of one PDF, including the wait for a permit.
const RENDER_TIMEOUT: Duration = Duration::from_secs(30);

/// The effect of `invoice.render.v1`.
#[derive(Clone, Debug)]
pub struct RenderInvoiceHandler {
    pdf: Arc<InvoicePdf>,
    files: FileStore,
    /// Permits to render. Rendering is CPU-bound: twice as many at once as there are cores, for any number of consumers, so
    /// that no core waits while the next invoice is handed over.
    permits: Arc<Semaphore>,
}

/// The result of the operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenderedInvoice {
    /// `invoices.id`.
    pub invoice_id: Uuid,
    /// `files.id` of the PDF.
    pub file_id: Uuid,
}

/// The recipient and the content of the mail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InvoiceMail {
    to_email: String,
    to_name: Option<String>,
    user_id: Option<Uuid>,
    locale: String,
    payment_id: Option<Uuid>,
    context: RawJson,
}

/// An issued invoice: the data of its template and of its mail.
#[derive(Clone, Debug)]
pub struct InvoiceToRender {
    id: Uuid,
    financial_year: String,
    file_id: Option<Uuid>,
    content: Value,
    mail: InvoiceMail,
}

/// A PDF in the store.
#[derive(Debug)]
pub struct StoredPdf {
    object_key: String,
    size_bytes: i64,
    sha256: Vec<u8>,
}

impl RenderInvoiceHandler {
    /// Makes the handler, with the institute's template or the built-in one.
    ///
    /// # Errors
    /// `institute.templates_dir` has no readable `invoice.typ`.
    pub fn new(institute: &Institute, files: FileStore) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pdf = InvoicePdf::new(institute.templates_dir.clone())?;
        Ok(Self { pdf: Arc::new(pdf), files, permits: Arc::new(Semaphore::new(2 * cores)) })
    }

    async fn render(&self, invoice: &InvoiceToRender) -> Result<Vec<u8>, Failure> {
        let _permit = self.permits.acquire().await.map_err(Failure::retry)?;
        let (pdf, id, content) = (self.pdf.clone(), invoice.id, invoice.content.clone());
        let rendered = tokio::task::spawn_blocking(move || pdf.render(id, &content)).await.map_err(Failure::retry)?;
        // A template can be mended, after which the same event succeeds: it goes through the retry ladder first.
        rendered.map_err(Failure::retry)
    }
}

impl Effect for RenderInvoiceHandler {
    type Command = messages::RenderInvoice;
    type Work = Option<InvoiceToRender>;
    type Done = Option<StoredPdf>;
    type Result = RenderedInvoice;
    type Memo = InvoiceMail;

    /// More than are rendered at once: the others are being written, and the disk syncs several together.
    const CONCURRENCY: usize = 32;

    async fn claim(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<Self::Command>],
    ) -> Result<Vec<Claim<Self::Work>>, Failure> {
        let wanted: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.command.invoice_id).collect();
        let invoices = select_invoices(tx, &wanted).await?;
        // Rendering twice is harmless, and an invoice with a PDF may still need its mail: so every event is claimed.
        Ok(wanted.iter().map(|id| Claim::Do(invoices.get(id).cloned())).collect())
    }

    async fn perform(&self, _: &Delivery<Self::Command>, work: &Self::Work) -> Result<Self::Done, Failure> {
        let invoice = work.as_ref().ok_or_else(|| Failure::poison("there is no such invoice"))?;
        if invoice.file_id.is_some() {
            return Ok(None);
        }
        let rendered = tokio::time::timeout(RENDER_TIMEOUT, self.render(invoice)).await.map_err(Failure::retry)??;
        let pdf = StoredPdf {
            object_key: format!("invoices/{}/{}.pdf", invoice.financial_year, invoice.id),
            size_bytes: i64::try_from(rendered.len()).expect("a PDF fits into memory"),
            sha256: Sha256::digest(&rendered).to_vec(),
        };
        self.files.put(&pdf.object_key, Bytes::from(rendered)).await.map_err(Failure::retry)?;
        Ok(Some(pdf))
    }

    async fn mark(
        &self,
        tx: &mut PgConnection,
        performed: &[(&Delivery<Self::Command>, &Self::Work, &Result<Self::Done, Failure>)],
    ) -> Result<Vec<Outcome<Self::Result, Self::Memo>>, Failure> {
        let done = performed
            .iter()
            .filter_map(|(delivery, work, result)| Some((*delivery, work.as_ref()?, result.as_ref().ok()?.as_ref())));
        let stored: Vec<_> =
            done.clone().filter_map(|(delivery, invoice, pdf)| Some((delivery, invoice, pdf?))).collect();
        if !stored.is_empty() {
            insert_files(tx, &stored).await?;
        }
        let outcome = |invoice: &InvoiceToRender| {
            let file_id = invoice.file_id.unwrap_or_else(|| file_id(invoice.id));
            let result = RenderedInvoice { invoice_id: invoice.id, file_id };
            Outcome { verdict: Verdict::Succeeded(result), memo: invoice.mail.clone() }
        };
        Ok(done.map(|(_, invoice, _)| outcome(invoice)).collect())
    }

    fn follow_ups(&self, _: &Delivery<Self::Command>, outcome: &Outcome<Self::Result, Self::Memo>) -> Vec<FollowUp> {
        let (Verdict::Succeeded(rendered), Some(payment_id)) = (&outcome.verdict, outcome.memo.payment_id) else {
            return Vec::new();
        };
        let mail = &outcome.memo;
        vec![FollowUp::new(
            "payment_approved",
            SendEmail {
                to_email: mail.to_email.clone(),
                to_name: mail.to_name.clone(),
                user_id: mail.user_id,
                template: EmailTemplate::PaymentApproved,
                locale: mail.locale.clone(),
                context: mail.context.clone(),
                token_id: None,
                attachment_file_id: Some(rendered.file_id),
                dedupe_key: format!("payment_approved:{payment_id}"),
            },
        )]
    }
}

fn file_id(invoice_id: Uuid) -> Uuid {
    ids::follow_up_id(invoice_id, "file", "pdf")
}

async fn select_invoices(tx: &mut PgConnection, wanted: &[Uuid]) -> Result<HashMap<Uuid, InvoiceToRender>, Failure> {
    let rows = sqlx::query!(
        r#"SELECT i.id, i.number, i.kind, i.issue_date, i.supplier, i.recipient, i.currency, i.subtotal, i.discount,
                  i.tax, i.rounding, i.total, i.pdf_file_id, i.payment_id, i.student_id, s.financial_year,
                  (SELECT jsonb_agg(jsonb_build_object('description', l.description, 'quantity', l.quantity::text,
                                                       'unit_price', l.unit_price::text, 'amount', l.amount::text,
                                                       'tax_rate', l.tax_rate::text, 'tax', l.tax::text)
                                    ORDER BY l.position)
                     FROM invoice_lines l
                    WHERE l.invoice_id = i.id) AS "lines!",
                  p.transaction_id, p.method, p.paid_at::date::text AS "paid_on?",
                  u.email::text AS "email!", up.full_name AS "full_name?", up.locale AS "locale?",
                  c.title AS course, b.name AS batch, r.request_no, r.id AS registration_id,
                  r.amount_due - r.amount_paid AS "balance!"
             FROM invoices i
             JOIN invoice_series s        ON s.id = i.series_id
             JOIN payments p              ON p.id = i.payment_id
             JOIN student_registrations r ON r.id = i.registration_id
             JOIN batches b               ON b.id = r.batch_id
             JOIN courses c               ON c.id = b.course_id
             JOIN users u                 ON u.id = i.student_id
             LEFT JOIN user_profiles up   ON up.user_id = u.id
            WHERE i.id = ANY ($1)"#,
        wanted,
    )
    .fetch_all(&mut *tx)
    .await?;
    let issued = |date: NaiveDate| date.format("%Y-%m-%d").to_string();
    Ok(rows
        .into_iter()
        .map(|row| InvoiceToRender {
            id: row.id,
            financial_year: row.financial_year,
            file_id: row.pdf_file_id,
            content: json!({
                "number": row.number, "kind": row.kind, "issue_date": issued(row.issue_date), "currency": row.currency,
                "supplier": row.supplier, "recipient": row.recipient, "lines": row.lines,
                "subtotal": row.subtotal, "discount": row.discount, "tax": row.tax, "rounding": row.rounding,
                "total": row.total,
                "payment": { "transaction_id": row.transaction_id, "method": row.method, "paid_on": row.paid_on },
            }),
            mail: InvoiceMail {
                to_email: row.email,
                to_name: row.full_name.clone(),
                user_id: Some(row.student_id),
                locale: row.locale.unwrap_or_else(|| "en".to_owned()),
                payment_id: Some(row.payment_id),
                context: json!({
                    "name": row.full_name, "course": row.course, "batch": row.batch, "request_no": row.request_no,
                    "registration_id": row.registration_id, "amount": row.total, "currency": row.currency,
                    "transaction_id": row.transaction_id, "invoice_number": row.number, "balance": row.balance,
                })
                .into(),
            },
        })
        .map(|invoice| (invoice.id, invoice))
        .collect())
}

type Stored<'a> = (&'a Delivery<messages::RenderInvoice>, &'a InvoiceToRender, &'a StoredPdf);

async fn insert_files(tx: &mut PgConnection, stored: &[Stored<'_>]) -> Result<(), Failure> {
    let invoice_ids: Vec<Uuid> = stored.iter().map(|(_, invoice, _)| invoice.id).collect();
    let file_ids: Vec<Uuid> = invoice_ids.iter().map(|id| file_id(*id)).collect();
    let names: Vec<String> = stored
        .iter()
        .map(|(_, invoice, _)| format!("{}.pdf", invoice.content["number"].as_str().unwrap_or("invoice")))
        .collect();
    let keys: Vec<String> = stored.iter().map(|(_, _, pdf)| pdf.object_key.clone()).collect();
    let sizes: Vec<i64> = stored.iter().map(|(_, _, pdf)| pdf.size_bytes).collect();
    let hashes: Vec<Vec<u8>> = stored.iter().map(|(_, _, pdf)| pdf.sha256.clone()).collect();
    let operation_ids: Vec<Uuid> = stored.iter().map(|(delivery, _, _)| delivery.id).collect();
    sqlx::query!(
        "INSERT INTO files (id, object_key, file_name, mime, size_bytes, sha256, purpose, operation_id)
         SELECT id, object_key, file_name, 'application/pdf', size_bytes, sha256, 'invoice', operation_id
           FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::uuid[])
             AS new (id, object_key, file_name, size_bytes, sha256, operation_id)
          ORDER BY id
         ON CONFLICT (id) DO NOTHING",
        &file_ids,
        &keys,
        &names,
        &sizes,
        &hashes,
        &operation_ids,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "UPDATE invoices
            SET pdf_file_id = new.file_id, updated_at = now()
           FROM UNNEST($1::uuid[], $2::uuid[]) AS new (invoice_id, file_id)
          WHERE invoices.id = new.invoice_id
            AND invoices.pdf_file_id IS NULL",
        &invoice_ids,
        &file_ids,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}
