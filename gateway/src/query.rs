//! Query parameters and path ids: unknown or malformed parameters are refused by name, and what is no UUID names nothing.

use axum::{
    extract::{FromRequestParts, Path, rejection::PathRejection},
    http::{HeaderMap, request::Parts},
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    problem_response::{ApiError, ApiResult},
    state::App,
};

/// Query parameters of this shape. Shapes say `deny_unknown_fields`.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// The one UUID in the path.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub Uuid);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> ApiResult<Self> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Query(query)),
            Err(rejection) => Err(ApiError::invalid_request(rejection.body_text())),
        }
    }
}

impl FromRequestParts<App> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let path: Result<Path<Uuid>, PathRejection> = Path::from_request_parts(parts, app).await;
        path.map(|Path(id)| Id(id)).map_err(|_| ApiError::not_found())
    }
}

/// How long the client asks to wait, by `Prefer: wait=N` (RFC 7240 §4.3), in seconds; other preferences are ignored, as
/// the standard asks.
pub fn preferred_wait_seconds(headers: &HeaderMap) -> Option<u64> {
    let preferences = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|value| value.split(','))
        .filter_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse().ok())?
        })
        .next()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_preference_for_waiting_is_found_among_others() {
        for (header, seconds) in [
            ("wait=5", Some(5)),
            ("respond-async, wait=10", Some(10)),
            ("Wait = \"3\"; foo=bar", Some(3)),
            ("wait=soon", None),
            ("waiting=5", None),
            ("return=minimal", None),
        ] {
            let headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("prefer"),
                HeaderValue::from_static(header),
            )]);
            assert_eq!(preferred_wait_seconds(&headers), seconds, "{header}");
        }
    }
}
