//! `GET /problems/{slug}`: the meaning of a problem's `type`. The URI in every error leads here.

use axum::{extract::Path, http::header, response::IntoResponse};
use contracts::ProblemType;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    http::{ApiError, ApiResult, Representation},
};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(show))
}

/// A kind of problem. Kinds are stable: switch on them.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct ProblemKind {
    /// As in `type` of the problem.
    #[serde(rename = "type")]
    #[schema(example = "/problems/batch-full")]
    problem_type: String,
    /// Always the same.
    title: &'static str,
    /// The HTTP status, also where it is the outcome of an operation.
    status: u16,
    /// `true` where the same request can succeed later.
    retryable: bool,
}

impl From<ProblemType> for ProblemKind {
    fn from(problem_type: ProblemType) -> Self {
        Self {
            problem_type: format!("/problems/{}", problem_type.slug()),
            title: problem_type.title(),
            status: problem_type.status(),
            retryable: problem_type.retryable(),
        }
    }
}

/// Every kind of problem.
#[utoipa::path(
    get,
    path = "/problems",
    responses((status = 200, description = "Every kind", body = Vec<ProblemKind>)),
    security(())
)]
async fn list() -> impl IntoResponse {
    let kinds: Vec<ProblemKind> = ProblemType::ALL.iter().copied().map(ProblemKind::from).collect();
    ([(header::CACHE_CONTROL, "public, max-age=3600")], Representation::new(kinds))
}

/// One kind of problem.
#[utoipa::path(
    get,
    path = "/problems/{slug}",
    params(("slug" = String, Path, example = "batch-full")),
    responses((status = 200, description = "The kind", body = ProblemKind)),
    security(())
)]
async fn show(Path(slug): Path<String>) -> ApiResult<impl IntoResponse> {
    let kind = ProblemType::ALL.iter().copied().find(|kind| kind.slug() == slug).ok_or_else(ApiError::not_found)?;
    Ok(([(header::CACHE_CONTROL, "public, max-age=3600")], Representation::new(ProblemKind::from(kind))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_explained_where_its_uri_leads() {
        for problem_type in ProblemType::ALL.iter().copied() {
            let kind = ProblemKind::from(problem_type);
            assert_eq!(kind.problem_type, contracts::Problem::new(problem_type).problem_type);
            assert_eq!(kind.status, problem_type.status());
        }
    }
}
