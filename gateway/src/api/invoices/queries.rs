//! Reads of invoices: a statement for each scope.

use sqlx::PgPool;
use uuid::Uuid;

use super::views::{InvoiceDetail, InvoiceFilter, InvoiceStatusFilter as Status, InvoiceView};
use crate::extract::List;

/// The rendered file of an invoice; its members are absent until it is rendered.
pub struct InvoiceFile {
    /// The invoice's student.
    pub student_id: Uuid,
    /// The invoice's number.
    pub number: String,
    /// The key in the object store.
    pub object_key: Option<String>,
    /// Its size.
    pub size_bytes: Option<i64>,
    /// Its digest.
    pub sha256: Option<Vec<u8>>,
}

/// Reads a page of all invoices.
pub async fn list_all(db: &PgPool, list: &List<InvoiceFilter>) -> sqlx::Result<Vec<InvoiceView>> {
    sqlx::query_as!(
        InvoiceView,
        r#"SELECT   id, kind, number, status, issue_date, payment_id, registration_id, student_id, currency, total,
                    pdf_file_id IS NOT NULL AS "pdf_ready!"
           FROM     invoices
           WHERE    ($1::uuid IS NULL OR student_id = $1)
             AND    ($2::text IS NULL OR status = $2)
             AND    ($3::uuid IS NULL OR id < $3)
           ORDER BY id DESC
           LIMIT    $4"#,
        list.filter.student_id,
        list.filter.status as Option<Status>,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads a page of one student's invoices; another student in the filter has none.
pub async fn list_of_student(
    db: &PgPool,
    student_id: Uuid,
    list: &List<InvoiceFilter>,
) -> sqlx::Result<Vec<InvoiceView>> {
    if list.filter.student_id.is_some_and(|filtered| filtered != student_id) {
        return Ok(Vec::new());
    }
    sqlx::query_as!(
        InvoiceView,
        r#"SELECT   id, kind, number, status, issue_date, payment_id, registration_id, student_id, currency, total,
                    pdf_file_id IS NOT NULL AS "pdf_ready!"
           FROM     invoices
           WHERE    student_id = $1
             AND    ($2::text IS NULL OR status = $2)
             AND    ($3::uuid IS NULL OR id < $3)
           ORDER BY id DESC
           LIMIT    $4"#,
        student_id,
        list.filter.status as Option<Status>,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads any invoice with its lines.
pub async fn show_any(db: &PgPool, id: Uuid) -> sqlx::Result<Option<InvoiceDetail>> {
    sqlx::query_as!(
        InvoiceDetail,
        r#"SELECT id, kind, number, status, issue_date, issued_at, payment_id, registration_id, student_id, original_id,
                  supplier, recipient, currency, subtotal, discount, tax, rounding, total,
                  pdf_file_id IS NOT NULL AS "pdf_ready!",
                  (SELECT coalesce(jsonb_agg(jsonb_build_object(
                              'position', position, 'description', description, 'quantity', quantity::text,
                              'unit_price', unit_price::text, 'amount', amount::text, 'tax_rate', tax_rate::text,
                              'tax', tax::text) ORDER BY position), '[]')
                   FROM   invoice_lines
                   WHERE  invoice_lines.invoice_id = invoices.id) AS "lines!"
           FROM   invoices
           WHERE  id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// Reads the file of any invoice.
pub async fn file_of_any(db: &PgPool, id: Uuid) -> sqlx::Result<Option<InvoiceFile>> {
    sqlx::query_as!(
        InvoiceFile,
        r#"SELECT    invoices.student_id, invoices.number, files.object_key AS "object_key?",
                     files.size_bytes AS "size_bytes?", files.sha256 AS "sha256?"
           FROM      invoices
           LEFT JOIN files ON files.id = invoices.pdf_file_id
           WHERE     invoices.id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}
