//! Path parameters: one id, or several parameters by name, dates among them. A segment that is no id names nothing, so
//! the answer is a 404; for other parameters its detail tells the form to send.

use axum::{
    extract::{
        FromRequestParts,
        path::ErrorKind,
        rejection::{PathRejection, PathRejection::FailedToDeserializePathParams},
    },
    http::request::Parts,
};
use contracts::{Problem, ProblemType};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::http::{ApiError, ApiResult};

/// The one UUID in the path.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub Uuid);

/// All parameters of the path: a struct with a field for each, such as `{ id: Uuid, date: NaiveDate }`.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let path = axum::extract::Path::<Uuid>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(id)| Id(id)).map_err(|_| ApiError::not_found())
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(parameters)| Path(parameters)).map_err(refuse)
    }
}

fn refuse(rejection: PathRejection) -> ApiError {
    let FailedToDeserializePathParams(error) = rejection else { return ApiError::not_found() };
    match error.into_kind() {
        ErrorKind::DeserializeError { key, message, .. } if !is_id(&key) => {
            let detail = format!("`{key}` in the path has the wrong form: {message}. A date is written 2026-01-31.");
            Problem::new(ProblemType::NotFound).detail(detail).into()
        }
        ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
            Problem::new(ProblemType::NotFound).detail(format!("`{key}` in the path must be a {expected_type}.")).into()
        }
        _ => ApiError::not_found(),
    }
}

fn is_id(key: &str) -> bool {
    key == "id" || key.ends_with("_id")
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::Request, routing::get};
    use chrono::NaiveDate;
    use http_body_util::BodyExt;
    use serde::Deserialize;
    use tower::ServiceExt;

    use super::*;

    #[derive(Deserialize)]
    struct Parameters {
        id: Uuid,
        date: NaiveDate,
    }

    async fn answer(path: &str) -> (u16, String) {
        let show = |Path(Parameters { id, date }): Path<Parameters>| async move { format!("{id} {date}") };
        let router: Router = Router::new().route("/batches/{id}/attendance/{date}", get(show));
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn an_id_and_a_date_are_read_and_a_bad_one_names_nothing() {
        let id = Uuid::max();
        let read = answer(&format!("/batches/{id}/attendance/2026-01-31")).await;
        assert_eq!(read, (200, format!("{id} 2026-01-31")));
        let (status, problem) = answer(&format!("/batches/{id}/attendance/31.01.2026")).await;
        assert!(status == 404 && problem.contains("`date` in the path"), "{status} {problem}");
        let (status, problem) = answer("/batches/x/attendance/2026-01-31").await;
        assert!(status == 404 && !problem.contains("detail"), "{status} {problem}");
    }
}
