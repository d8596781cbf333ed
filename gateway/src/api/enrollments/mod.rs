//! Enrollments: students in course batches.

mod queries;
mod views;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use sqlx::PgPool;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::{Caller, Records, Scope},
    extract::{List, Page},
    http::{ApiResult, Representation},
};
use views::{EnrollmentFilter, EnrollmentView, TaughtEnrollmentView};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Enrollments
///
/// The newest first. Students see their own, accountants and admins everybody's; teachers see those of the batches that
/// they teach (`TaughtEnrollmentView`).
#[utoipa::path(get, path = "/v1/enrollments", params(List<EnrollmentFilter>),
    responses((status = 200, description = "A page.", body = Page<EnrollmentView>)), security(("bearer" = [])))]
async fn list(State(db): State<PgPool>, caller: Caller, list: List<EnrollmentFilter>) -> ApiResult<Response> {
    let rows = match caller.scope(Records::Enrollments) {
        Scope::All => queries::list_all(&db, &list).await?,
        Scope::OwnStudent(student_id) => queries::list_of_student(&db, student_id, &list).await?,
        Scope::TaughtBy(teacher_id) => {
            let rows = queries::list_taught_by(&db, teacher_id, &list).await?;
            let page: Page<TaughtEnrollmentView> = list.page(rows, |row| row.id);
            return Ok(Representation::new(page).into_response());
        }
    };
    Ok(Representation::new(list.page(rows, |row| row.id)).into_response())
}
