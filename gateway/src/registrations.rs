//! Registrations: asked for, given up and reviewed by command; listed from the database.

use std::collections::BTreeMap;

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use contracts::{
    Role,
    messages::{CancelRegistration, Registrant, RegistrationDecision, ReviewRegistration, SubmitRegistration},
    validation::normalise_email,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::{Caller, MaybeCaller},
    ingest::{self, Asked},
    json_body::{Json, OptionalJson},
    operations::OperationView,
    page::{self, Page},
    problem_response::{ApiError, ApiResult},
    query::{Id, Query},
    registrant::registrant,
    state::App,
};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(submit, list))
        .routes(routes!(show))
        .routes(routes!(cancel))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

/// A seat asked for. Visitors say who they are; signed-in students send only `batch_id` and `answers`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRegistration {
    /// The batch.
    pub batch_id: Uuid,
    /// Visitors: the address that the magic link goes to.
    pub email: Option<String>,
    /// Visitors: 1 to 200 characters.
    pub full_name: Option<String>,
    /// Visitors: 5 to 20 digits, spaces, +, - or brackets.
    pub phone: Option<String>,
    /// Answers to the batch's own questions.
    pub answers: Option<BTreeMap<String, String>>,
}

/// Why a registration is given up.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Cancellation {
    /// At most 500 characters.
    reason: Option<String>,
}

/// No members.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Approval {}

/// Why an applicant is not admitted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rejection {
    /// Told to the applicant; at most 500 characters.
    reason: String,
}

/// A registration.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegistrationView {
    /// `student_registrations.id`.
    pub id: Uuid,
    /// For people.
    pub request_no: String,
    /// Whose it is.
    pub student_id: Uuid,
    /// The batch.
    pub batch_id: Uuid,
    /// `seat_held`, `waitlisted`, `confirmed`, ….
    pub status: String,
    /// Whether the mailed link has yet to be opened.
    pub provisional: bool,
    /// Before tax and discount.
    #[schema(value_type = String)]
    pub fee: Decimal,
    /// Off the fee.
    #[schema(value_type = String)]
    pub discount: Decimal,
    /// On top.
    #[schema(value_type = String)]
    pub tax: Decimal,
    /// In all, not what remains.
    #[schema(value_type = String)]
    pub amount_due: Decimal,
    /// Of it.
    #[schema(value_type = String)]
    pub amount_paid: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// When the seat is given up unless paid for.
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// The place in the order of the waitlist; not the number of people before.
    pub waitlist_seq: Option<i64>,
    /// Why it was refused or given up.
    pub reason: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
}

/// Parameters of [`list`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// In this state only.
    status: Option<String>,
    /// Of this batch only.
    batch_id: Option<Uuid>,
    /// 1 to 100 items; 25 by default.
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    cursor: Option<Uuid>,
}

/// Ask for a seat
#[utoipa::path(post, path = "/v1/registrations", tag = "registrations", request_body = NewRegistration,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security((), ("bearer" = [])))]
async fn submit(
    State(app): State<App>,
    caller: MaybeCaller,
    asked: Asked,
    Json(body): Json<NewRegistration>,
) -> ApiResult<Response> {
    let batch_id = body.batch_id;
    let (registrant, answers) = registrant(caller.0.as_ref(), body)?;
    let principal = caller.principal();
    // Two strangers' weak keys never collide.
    let scope = match &registrant {
        Registrant::Student { .. } => principal.to_string(),
        Registrant::Visitor { email, .. } => normalise_email(email),
    };
    app.catalogue.check_open(batch_id).await?;
    let command = SubmitRegistration { batch_id, registrant, answers };
    ingest::accept(&app, asked, principal, &scope, "POST /v1/registrations", command).await
}

/// Give a registration up
#[utoipa::path(post, path = "/v1/registrations/{id}/cancel", tag = "registrations", params(("id" = Uuid, Path)),
    request_body = Option<Cancellation>,
    responses((status = 202, description = "Safe with the broker.", body = OperationView)), security(("bearer" = [])))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Id(registration_id): Id,
    asked: Asked,
    OptionalJson(Cancellation { reason }): OptionalJson<Cancellation>,
) -> ApiResult<Response> {
    caller.require(&[Role::Student, Role::Admin])?;
    let route = format!("POST /v1/registrations/{registration_id}/cancel");
    take(&app, &caller, asked, &route, CancelRegistration { registration_id, reason }).await
}

/// Let an applicant in
#[utoipa::path(post, path = "/v1/registrations/{id}/approve", tag = "registrations", params(("id" = Uuid, Path)),
    request_body = Option<Approval>,
    responses((status = 202, description = "Safe with the broker.", body = OperationView)), security(("bearer" = [])))]
async fn approve(
    State(app): State<App>,
    caller: Caller,
    Id(registration_id): Id,
    asked: Asked,
    OptionalJson(Approval {}): OptionalJson<Approval>,
) -> ApiResult<Response> {
    caller.require(&[Role::Admin])?;
    let route = format!("POST /v1/registrations/{registration_id}/approve");
    take(&app, &caller, asked, &route, ReviewRegistration { registration_id, decision: RegistrationDecision::Approve })
        .await
}

/// Do not admit an applicant
#[utoipa::path(post, path = "/v1/registrations/{id}/reject", tag = "registrations", params(("id" = Uuid, Path)),
    request_body = Rejection,
    responses((status = 202, description = "Safe with the broker.", body = OperationView)), security(("bearer" = [])))]
async fn reject(
    State(app): State<App>,
    caller: Caller,
    Id(registration_id): Id,
    asked: Asked,
    Json(Rejection { reason }): Json<Rejection>,
) -> ApiResult<Response> {
    caller.require(&[Role::Admin])?;
    let route = format!("POST /v1/registrations/{registration_id}/reject");
    let decision = RegistrationDecision::Reject { reason };
    take(&app, &caller, asked, &route, ReviewRegistration { registration_id, decision }).await
}

async fn take<C: contracts::Command>(
    app: &App,
    caller: &Caller,
    asked: Asked,
    route: &str,
    command: C,
) -> ApiResult<Response> {
    let principal = caller.principal();
    ingest::accept(app, asked, principal, &principal.to_string(), route, command).await
}

/// Registrations: one's own, or everybody's for staff
#[utoipa::path(get, path = "/v1/registrations", tag = "registrations", params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<RegistrationView>)), security(("bearer" = [])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> ApiResult<Response> {
    let limit = page::limit(query.limit)?;
    let rows = sqlx::query_as!(
        RegistrationView,
        "SELECT   id, request_no, student_id, batch_id, status, provisional, fee, discount, tax, amount_due, amount_paid,
                  currency, hold_expires_at, waitlist_seq, reason, created_at, updated_at
         FROM     student_registrations
         WHERE    ($1::uuid IS NULL OR student_id = $1)
                  AND ($2::text IS NULL
                       OR status = $2 AND phase = CASE WHEN $2 IN ('seat_held', 'payment_submitted') THEN 'held' ELSE $2 END)
                  AND ($3::uuid IS NULL OR batch_id = $3)
                  AND ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC
         LIMIT    $5",
        caller.own_rows_only(),
        query.status,
        query.batch_id,
        query.cursor,
        limit + 1
    )
    .fetch_all(&app.db)
    .await?;
    Ok(page::respond(&headers, &Page::of(rows, limit, |row| row.id)))
}

/// One registration
#[utoipa::path(get, path = "/v1/registrations/{id}", tag = "registrations", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The registration.", body = RegistrationView)), security(("bearer" = [])))]
async fn show(State(app): State<App>, caller: Caller, Id(id): Id, headers: HeaderMap) -> ApiResult<Response> {
    let row = sqlx::query_as!(
        RegistrationView,
        "SELECT id, request_no, student_id, batch_id, status, provisional, fee, discount, tax, amount_due, amount_paid,
                currency, hold_expires_at, waitlist_seq, reason, created_at, updated_at
         FROM   student_registrations
         WHERE  id = $1 AND ($2::uuid IS NULL OR student_id = $2)",
        id,
        caller.own_rows_only()
    )
    .fetch_optional(&app.db)
    .await?;
    Ok(page::respond(&headers, &row.ok_or_else(ApiError::not_found)?))
}
