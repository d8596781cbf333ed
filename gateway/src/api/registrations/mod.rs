//! Registrations: submitted, cancelled and reviewed by command; read from the database.

mod queries;
mod registrant;
mod views;

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use contracts::{
    Role,
    messages::{CancelRegistration, Registrant, RegistrationDecision, ReviewRegistration, SubmitRegistration},
    validation::normalise_email,
};
use sqlx::PgPool;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::{Caller, Records, Scope},
    catalogue::Catalogue,
    commands::{CommandRequest, PublicCommandRequest},
    extract::{Id, Json, List, OptionalJson, Page},
    http::{ApiError, ApiResult, Representation},
    live::operations::OperationView,
};
use registrant::registrant;
use views::{
    Cancellation, NewRegistration, RegistrationApproval, RegistrationFilter, RegistrationRejection, RegistrationView,
    TaughtRegistrationView,
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

/// Register for a batch
#[utoipa::path(post, path = "/v1/registrations", request_body = NewRegistration,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security((), ("bearer" = ["student"])))]
async fn submit(
    State(catalogue): State<Arc<Catalogue>>,
    mut request: PublicCommandRequest,
    Json(body): Json<NewRegistration>,
) -> ApiResult<Response> {
    let batch_id = body.batch_id;
    let (registrant, answers) = registrant(request.caller.as_ref(), body)?;
    if let Registrant::Visitor { email, .. } = &registrant {
        request = request.scoped(normalise_email(email));
    }
    catalogue.check_open(batch_id).await?;
    request.submit(SubmitRegistration { batch_id, registrant, answers }).await
}

/// Cancel a registration
#[utoipa::path(post, path = "/v1/registrations/{id}/cancel", params(("id" = Uuid, Path)),
    request_body = Option<Cancellation>,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security(("bearer" = ["student", "admin"])))]
async fn cancel(
    Id(registration_id): Id,
    request: CommandRequest,
    OptionalJson(Cancellation { reason }): OptionalJson<Cancellation>,
) -> ApiResult<Response> {
    request.require(&[Role::Student, Role::Admin])?;
    request.submit(CancelRegistration { registration_id, reason }).await
}

/// Admit an applicant
#[utoipa::path(post, path = "/v1/registrations/{id}/approve", params(("id" = Uuid, Path)),
    request_body = Option<RegistrationApproval>,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security(("bearer" = ["admin"])))]
async fn approve(
    Id(registration_id): Id,
    request: CommandRequest,
    OptionalJson(RegistrationApproval {}): OptionalJson<RegistrationApproval>,
) -> ApiResult<Response> {
    request.require(&[Role::Admin])?;
    request.submit(ReviewRegistration { registration_id, decision: RegistrationDecision::Approve }).await
}

/// Reject an applicant
#[utoipa::path(post, path = "/v1/registrations/{id}/reject", params(("id" = Uuid, Path)),
    request_body = RegistrationRejection,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security(("bearer" = ["admin"])))]
async fn reject(
    Id(registration_id): Id,
    request: CommandRequest,
    Json(RegistrationRejection { reason }): Json<RegistrationRejection>,
) -> ApiResult<Response> {
    request.require(&[Role::Admin])?;
    request.submit(ReviewRegistration { registration_id, decision: RegistrationDecision::Reject { reason } }).await
}

/// Registrations
///
/// The newest first. Students see their own, accountants and admins everybody's; teachers see those of the batches that
/// they teach, without money, answers and contacts (`TaughtRegistrationView`).
#[utoipa::path(get, path = "/v1/registrations", params(List<RegistrationFilter>),
    responses((status = 200, description = "A page.", body = Page<RegistrationView>)), security(("bearer" = [])))]
async fn list(State(db): State<PgPool>, caller: Caller, list: List<RegistrationFilter>) -> ApiResult<Response> {
    let rows = match caller.scope(Records::Registrations) {
        Scope::All => queries::list_all(&db, &list).await?,
        Scope::OwnStudent(student_id) => queries::list_of_student(&db, student_id, &list).await?,
        Scope::TaughtBy(teacher_id) => {
            let rows = queries::list_taught_by(&db, teacher_id, &list).await?;
            let page: Page<TaughtRegistrationView> = list.page(rows, |row| row.id);
            return Ok(Representation::new(page).into_response());
        }
    };
    Ok(Representation::new(list.page(rows, |row| row.id)).into_response())
}

/// One registration
#[utoipa::path(get, path = "/v1/registrations/{id}", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The registration.", body = RegistrationView)), security(("bearer" = [])))]
async fn show(State(db): State<PgPool>, caller: Caller, Id(id): Id) -> ApiResult<Response> {
    let found = match caller.scope(Records::Registrations) {
        Scope::All => queries::show_any(&db, id).await?,
        Scope::OwnStudent(student_id) => queries::show_of_student(&db, id, student_id).await?,
        Scope::TaughtBy(teacher_id) => {
            let found = queries::show_taught_by(&db, id, teacher_id).await?;
            return Ok(Representation::new(found.ok_or_else(ApiError::not_found)?).into_response());
        }
    };
    Ok(Representation::new(found.ok_or_else(ApiError::not_found)?).into_response())
}
