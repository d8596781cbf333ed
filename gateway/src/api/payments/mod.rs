//! Payments: submitted by students, decided by accountants, one at a time or up to 500; read from the database.

mod queries;
mod views;

use axum::{extract::State, response::Response};
use contracts::{
    Role,
    messages::{DecidePayment, PaymentDecision, SubmitPayment},
};
use sqlx::PgPool;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::{Caller, Records, Scope},
    commands::{CommandRequest, Operations},
    extract::{Id, Json, List, OptionalJson, Page},
    http::{ApiError, ApiResult, Representation},
    live::operations::OperationView,
};
use views::{Decisions, NewPayment, PaymentApproval, PaymentFilter, PaymentRejection, PaymentView};

const DECIDERS: &[Role] = &[Role::Accountant, Role::Admin];

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(submit, list))
        .routes(routes!(decide_many))
        .routes(routes!(show))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

/// Submit a payment
#[utoipa::path(post, path = "/v1/payments", request_body = NewPayment,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security(("bearer" = ["student"])))]
async fn submit(request: CommandRequest, Json(body): Json<NewPayment>) -> ApiResult<Response> {
    request.require(&[Role::Student])?;
    let command = SubmitPayment {
        registration_id: body.registration_id,
        student_id: request.caller.user_id,
        method: body.method,
        transaction_id: body.transaction_id,
        amount: body.amount,
        currency: body.currency,
        paid_at: body.paid_at,
        payer_name: body.payer_name,
        proof_file_id: body.proof_file_id,
    };
    request.submit(command).await
}

/// Approve a payment
#[utoipa::path(post, path = "/v1/payments/{id}/approve", params(("id" = Uuid, Path)),
    request_body = Option<PaymentApproval>,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security(("bearer" = ["accountant", "admin"])))]
async fn approve(
    Id(payment_id): Id,
    request: CommandRequest,
    OptionalJson(PaymentApproval { note }): OptionalJson<PaymentApproval>,
) -> ApiResult<Response> {
    request.require(DECIDERS)?;
    request.submit(DecidePayment { payment_id, decision: PaymentDecision::Approve, note }).await
}

/// Reject a payment
#[utoipa::path(post, path = "/v1/payments/{id}/reject", params(("id" = Uuid, Path)),
    request_body = PaymentRejection,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security(("bearer" = ["accountant", "admin"])))]
async fn reject(
    Id(payment_id): Id,
    request: CommandRequest,
    Json(PaymentRejection { rejection_code, note }): Json<PaymentRejection>,
) -> ApiResult<Response> {
    request.require(DECIDERS)?;
    let decision = PaymentDecision::Reject { code: rejection_code };
    request.submit(DecidePayment { payment_id, decision, note }).await
}

/// Decide many payments
#[utoipa::path(post, path = "/v1/payments/decisions", request_body = Decisions,
    responses((status = 202, description = "All safe with the broker, each its own operation.", body = Operations),
              (status = 200, description = "All settled within `Prefer: wait`.", body = Operations)),
    security(("bearer" = ["accountant", "admin"])))]
async fn decide_many(request: CommandRequest, Json(decisions): Json<Decisions>) -> ApiResult<Response> {
    request.require(DECIDERS)?;
    decisions.check().map_err(ApiError::validation)?;
    request.submit_all(decisions.items.into_iter().map(|item| (item.payment_id, DecidePayment::from(item)))).await
}

/// Payments
///
/// Students see their own, accountants and admins everybody's.
#[utoipa::path(get, path = "/v1/payments", params(List<PaymentFilter>),
    responses((status = 200, description = "A page.", body = Page<PaymentView>)), security(("bearer" = [])))]
async fn list(
    State(db): State<PgPool>,
    caller: Caller,
    list: List<PaymentFilter>,
) -> ApiResult<Representation<Page<PaymentView>>> {
    let rows = match caller.scope(Records::Payments) {
        Scope::All => queries::list_all(&db, &list).await?,
        Scope::OwnStudent(student_id) => queries::list_of_student(&db, student_id, &list).await?,
        Scope::TaughtBy(_) => Vec::new(),
    };
    Ok(Representation::new(list.page(rows, |row| row.id)))
}

/// One payment
#[utoipa::path(get, path = "/v1/payments/{id}", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The payment.", body = PaymentView)), security(("bearer" = [])))]
async fn show(State(db): State<PgPool>, caller: Caller, Id(id): Id) -> ApiResult<Representation<PaymentView>> {
    let found = match caller.scope(Records::Payments) {
        Scope::All => queries::show_any(&db, id).await?,
        Scope::OwnStudent(student_id) => queries::show_of_student(&db, id, student_id).await?,
        Scope::TaughtBy(_) => None,
    };
    Ok(Representation::new(found.ok_or_else(ApiError::not_found)?))
}
