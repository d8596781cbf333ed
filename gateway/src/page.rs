//! Lists: keyset pages, newest first by id, with an `ETag` so that polling an unchanged list costs little.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contracts::Problem;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::problem_response::{ApiError, ApiResult};

/// Items a page at most, and by default.
pub const LIMIT_MAX: u16 = 100;
const LIMIT_DEFAULT: u16 = 25;

/// Which page, for lists without filters.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// 1 to 100 items; 25 by default.
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    pub cursor: Option<Uuid>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// Send it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<Uuid>,
}

impl<T> Page<T> {
    /// Makes a page of `limit + 1` rows: the one too many says that there is a next page.
    pub fn of(mut items: Vec<T>, limit: i64, id: impl Fn(&T) -> Uuid) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = more.then(|| items.last().map(id)).flatten();
        Self { items, next_cursor }
    }
}

/// The page's size, checked; ask the database for one row more.
///
/// # Errors
/// 400 unless it is 1 to 100.
pub fn limit(limit: Option<u16>) -> ApiResult<i64> {
    match limit.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(i64::from(limit)),
        _ => Err(ApiError::invalid_request(format!("`limit` must be 1 to {LIMIT_MAX}."))),
    }
}

/// JSON with an `ETag` of its content; 304 without a body where the client has it already (RFC 9110 §13.1.2).
pub fn respond<T: Serialize>(headers: &HeaderMap, value: &T) -> Response {
    let Ok(body) = serde_json::to_vec(value) else {
        return ApiError::from(Problem::new(contracts::ProblemType::Internal)).into_response();
    };
    let etag = tag(&Sha256::digest(&body));
    if knows(headers, &etag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    let json = HeaderValue::from_static("application/json");
    ([(header::ETAG, etag), (header::CONTENT_TYPE, json)], body).into_response()
}

/// The `ETag` of content with this digest.
pub fn tag(sha256: &[u8]) -> HeaderValue {
    let tag = sha256.iter().take(12).fold(String::with_capacity(24), |tag, byte| format!("{tag}{byte:02x}"));
    HeaderValue::from_str(&format!("\"{tag}\"")).expect("quoted hexadecimal digits are a header value")
}

/// Whether the client has what bears this tag (`If-None-Match`).
pub fn knows(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|known| known.as_bytes() == tag.as_bytes() || known == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_too_many_makes_the_cursor() {
        let ids: Vec<_> = (0..3).map(Uuid::from_u128).collect();
        let page = Page::of(ids.clone(), 2, |id| *id);
        assert_eq!((page.items.len(), page.next_cursor), (2, Some(ids[1])));
        assert_eq!(Page::of(ids, 3, |id| *id).next_cursor, None);
        assert!(limit(Some(0)).is_err() && limit(Some(101)).is_err());
    }

    #[test]
    fn an_unchanged_list_is_not_sent_again() {
        let first = respond(&HeaderMap::new(), &[1, 2]);
        let tag = first.headers()[header::ETAG].clone();
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]);
        assert_eq!(respond(&headers, &[1, 2]).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(respond(&headers, &[1, 3]).status(), StatusCode::OK);
    }
}
