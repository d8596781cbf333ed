//! Invoices and credit notes: lists, one with its lines, and the PDF as it was rendered. Students see their own.

mod queries;
mod views;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contracts::{Problem, ProblemType};
use object_store::{ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
use sqlx::PgPool;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    auth::{Caller, Records, Scope},
    extract::{Id, List, Page},
    http::{ApiError, ApiResult, Representation, representation::entity_tag, request_context},
};
use views::{InvoiceDetail, InvoiceFilter, InvoiceView};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(pdf))
}

/// Invoices
///
/// The newest first. Students see their own, accountants and admins everybody's.
#[utoipa::path(get, path = "/v1/invoices", params(List<InvoiceFilter>),
    responses((status = 200, description = "A page.", body = Page<InvoiceView>)), security(("bearer" = [])))]
async fn list(
    State(db): State<PgPool>,
    caller: Caller,
    list: List<InvoiceFilter>,
) -> ApiResult<Representation<Page<InvoiceView>>> {
    let rows = match caller.scope(Records::Invoices) {
        Scope::All => queries::list_all(&db, &list).await?,
        Scope::OwnStudent(student_id) => queries::list_of_student(&db, student_id, &list).await?,
        Scope::TaughtBy(_) => Vec::new(),
    };
    Ok(Representation::new(list.page(rows, |row| row.id)))
}

/// One invoice with its lines
#[utoipa::path(get, path = "/v1/invoices/{id}", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The invoice.", body = InvoiceDetail)), security(("bearer" = [])))]
async fn show(State(db): State<PgPool>, caller: Caller, Id(id): Id) -> ApiResult<Representation<InvoiceDetail>> {
    let found = queries::show_any(&db, id).await?.filter(|invoice| may_see(&caller, invoice.student_id));
    Ok(Representation::new(found.ok_or_else(ApiError::not_found)?))
}

/// The invoice as a PDF, as it was rendered once
#[utoipa::path(get, path = "/v1/invoices/{id}/pdf", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The PDF.", content_type = "application/pdf", body = Vec<u8>)),
    security(("bearer" = [])))]
async fn pdf(
    State(db): State<PgPool>,
    State(store): State<Arc<dyn ObjectStore>>,
    caller: Caller,
    Id(id): Id,
) -> ApiResult<Response> {
    let file = queries::file_of_any(&db, id).await?.filter(|file| may_see(&caller, file.student_id));
    let file = file.ok_or_else(ApiError::not_found)?;
    let (Some(object_key), Some(size_bytes), Some(sha256)) = (file.object_key, file.size_bytes, file.sha256) else {
        return Err(not_rendered());
    };
    let tag = entity_tag(None, &sha256);
    if request_context::client_holds(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let object = store.get(&ObjectPath::from(object_key)).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, invoice = %id, "a rendered invoice cannot be read");
        ApiError::from(ProblemType::Internal)
    })?;
    let name = file_name(&file.number);
    let mut response = Body::from_stream(object.into_stream()).into_response();
    response.headers_mut().extend([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/pdf")),
        (header::CONTENT_LENGTH, HeaderValue::from(size_bytes)),
        (header::CONTENT_DISPOSITION, disposition(&name)),
        (header::ETAG, tag),
    ]);
    Ok(response)
}

fn may_see(caller: &Caller, student_id: Uuid) -> bool {
    match caller.scope(Records::Invoices) {
        Scope::All => true,
        Scope::OwnStudent(own) => own == student_id,
        Scope::TaughtBy(_) => false,
    }
}

fn not_rendered() -> ApiError {
    let mut problem = Problem::new(ProblemType::NotFound).detail("The PDF is being made; ask again in a few seconds.");
    problem.retryable = true;
    ApiError::from(problem).retry_after(2)
}

/// The number as a file name: every character but letters and digits becomes a hyphen.
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
