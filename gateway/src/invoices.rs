//! Invoices and credit notes: lists, one with its lines, and the PDF as it was rendered. A student sees their own;
//! somebody else's is not there.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, NaiveDate, Utc};
use contracts::{Problem, ProblemType};
use object_store::{ObjectStoreExt, path::Path as ObjectPath};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::Caller,
    page::{self, Page},
    problem_response::{ApiError, ApiResult},
    query::{Id, Query},
    state::App,
};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(show)).routes(routes!(pdf))
}

/// One invoice or credit note in a list.
#[derive(Serialize, ToSchema)]
struct Invoice {
    id: Uuid,
    /// `invoice` or `credit_note`.
    kind: String,
    /// Gapless within its series.
    number: String,
    /// `issued` or `credited`.
    status: String,
    issue_date: NaiveDate,
    payment_id: Uuid,
    registration_id: Uuid,
    student_id: Uuid,
    /// ISO 4217.
    currency: String,
    #[schema(value_type = String, example = "11800.00")]
    total: Decimal,
    /// Whether `GET /v1/invoices/{id}/pdf` has it already.
    pdf_ready: bool,
}

/// One invoice or credit note, in full.
#[derive(Serialize, ToSchema)]
struct InvoiceDetail {
    id: Uuid,
    /// `invoice` or `credit_note`.
    kind: String,
    /// Gapless within its series.
    number: String,
    /// `issued` or `credited`.
    status: String,
    issue_date: NaiveDate,
    issued_at: DateTime<Utc>,
    payment_id: Uuid,
    registration_id: Uuid,
    student_id: Uuid,
    /// What a credit note corrects.
    original_id: Option<Uuid>,
    /// As it was at issue.
    supplier: Value,
    /// As it was at issue.
    recipient: Value,
    /// ISO 4217.
    currency: String,
    #[schema(value_type = String)]
    subtotal: Decimal,
    #[schema(value_type = String)]
    discount: Decimal,
    #[schema(value_type = String)]
    tax: Decimal,
    #[schema(value_type = String)]
    rounding: Decimal,
    /// Subtotal − discount + tax + rounding.
    #[schema(value_type = String)]
    total: Decimal,
    /// Whether `GET /v1/invoices/{id}/pdf` has it already.
    pdf_ready: bool,
    /// In their order.
    #[schema(value_type = Vec<InvoiceLine>)]
    lines: Value,
}

/// One line of an invoice.
#[allow(dead_code)]
#[derive(ToSchema)]
struct InvoiceLine {
    position: i32,
    description: String,
    quantity: String,
    unit_price: String,
    amount: String,
    /// Per cent.
    tax_rate: String,
    tax: String,
}

/// Which invoices.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of the page before.
    cursor: Option<Uuid>,
    /// 1 to 100.
    limit: Option<u16>,
    /// `issued` or `credited`.
    status: Option<String>,
    /// Whose; accountants and admins only.
    student_id: Option<Uuid>,
}

/// Invoices, the newest first: my own, or everybody's for accountants and admins.
#[utoipa::path(
    get,
    path = "/v1/invoices",
    tag = "invoices",
    params(Filter),
    responses((status = 200, description = "A page", body = Page<Invoice>), (status = 304, description = "Unchanged")),
    security(("bearer" = []))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(filter): Query<Filter>,
) -> ApiResult<Response> {
    let limit = page::limit(filter.limit)?;
    let invoices = sqlx::query_as!(
        Invoice,
        r#"SELECT   id, kind, number, status, issue_date, payment_id, registration_id, student_id, currency, total,
                    pdf_file_id IS NOT NULL AS "pdf_ready!"
           FROM     invoices
           WHERE    ($1::uuid IS NULL OR student_id = $1)
             AND    ($2::uuid IS NULL OR student_id = $2)
             AND    ($3::text IS NULL OR status = $3)
             AND    ($4::uuid IS NULL OR id < $4)
           ORDER BY id DESC
           LIMIT    $5"#,
        caller.own_rows_only(),
        filter.student_id,
        filter.status,
        filter.cursor,
        limit + 1
    )
    .fetch_all(&app.db)
    .await?;
    Ok(page::respond(&headers, &Page::of(invoices, limit, |invoice| invoice.id)))
}

/// One invoice with its lines.
#[utoipa::path(
    get,
    path = "/v1/invoices/{id}",
    tag = "invoices",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The invoice", body = InvoiceDetail), (status = 304, description = "Unchanged")),
    security(("bearer" = []))
)]
async fn show(State(app): State<App>, caller: Caller, headers: HeaderMap, Id(id): Id) -> ApiResult<Response> {
    let invoice = sqlx::query_as!(
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
           WHERE  id = $1 AND ($2::uuid IS NULL OR student_id = $2)"#,
        id,
        caller.own_rows_only()
    )
    .fetch_optional(&app.db)
    .await?
    .ok_or_else(ApiError::not_found)?;
    Ok(page::respond(&headers, &invoice))
}

/// The invoice as a PDF, as it was rendered once.
#[utoipa::path(
    get,
    path = "/v1/invoices/{id}/pdf",
    tag = "invoices",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The PDF", content_type = "application/pdf", body = Vec<u8>),
        (status = 304, description = "Unchanged"),
    ),
    security(("bearer" = []))
)]
async fn pdf(State(app): State<App>, caller: Caller, headers: HeaderMap, Id(id): Id) -> ApiResult<Response> {
    let invoice = sqlx::query!(
        r#"SELECT    invoices.number, files.object_key AS "object_key?", files.size_bytes AS "size_bytes?", files.sha256 AS "sha256?"
           FROM      invoices
           LEFT JOIN files ON files.id = invoices.pdf_file_id
           WHERE     invoices.id = $1 AND ($2::uuid IS NULL OR invoices.student_id = $2)"#,
        id,
        caller.own_rows_only()
    )
    .fetch_optional(&app.db)
    .await?
    .ok_or_else(ApiError::not_found)?;
    let (Some(object_key), Some(size_bytes), Some(sha256)) = (invoice.object_key, invoice.size_bytes, invoice.sha256)
    else {
        return Err(not_rendered());
    };
    let tag = page::tag(&sha256);
    if page::knows(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let object = app.store.get(&ObjectPath::from(object_key)).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, invoice = %id, "a rendered invoice cannot be read");
        ApiError::from(ProblemType::Internal)
    })?;
    let name = file_name(&invoice.number);
    let mut response = Body::from_stream(object.into_stream()).into_response();
    response.headers_mut().extend([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/pdf")),
        (header::CONTENT_LENGTH, HeaderValue::from(size_bytes)),
        (header::CONTENT_DISPOSITION, disposition(&name)),
        (header::ETAG, tag),
    ]);
    Ok(response)
}

fn not_rendered() -> ApiError {
    let mut problem = Problem::new(ProblemType::NotFound).detail("The PDF is being made; ask again in a few seconds.");
    problem.retryable = true;
    ApiError::from(problem).retry_after(2)
}

/// The number as a file name: what is neither letter nor digit becomes a hyphen.
fn file_name(number: &str) -> String {
    let safe: String = number.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{safe}.pdf")
}

fn disposition(name: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("inline; filename=\"{name}\""))
        .expect("letters, digits and hyphens are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_becomes_a_safe_file_name() {
        assert_eq!(file_name("INV/2026-27/000001"), "INV-2026-27-000001.pdf");
        assert_eq!(file_name("a\"\r\nb"), "a---b.pdf");
        assert_eq!(disposition("INV-1.pdf"), "inline; filename=\"INV-1.pdf\"");
    }
}
