//! Representations with an entity tag, so that polling something unchanged costs little (RFC 9110 §8.8.3). The tag is
//! a hash of the body; of a resource that is edited with `If-Match` it is `"<version>.<hash>"`: `If-None-Match` compares it
//! whole, `If-Match` the version alone.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contracts::ProblemType;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{ApiError, request_context};

/// Bytes of SHA-256 in an entity tag.
const HASH_BYTES: usize = 12;

/// A resource as JSON: 200 with its `ETag`, or 304 without a body where the client holds it already.
#[derive(Debug)]
pub struct Representation<T> {
    value: T,
    version: Option<i64>,
}

impl<T> Representation<T> {
    /// A resource that is only read.
    pub fn new(value: T) -> Self {
        Self { value, version: None }
    }

    /// A resource of this version, which only edits raise.
    pub fn versioned(version: i64, value: T) -> Self {
        Self { value, version: Some(version) }
    }
}

impl<T: Serialize> IntoResponse for Representation<T> {
    fn into_response(self) -> Response {
        let body = match serde_json::to_vec(&self.value) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "a view does not serialise");
                return ApiError::from(ProblemType::Internal).into_response();
            }
        };
        let etag = entity_tag(self.version, &Sha256::digest(&body));
        if request_context::client_holds(&etag) {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
        }
        let json = HeaderValue::from_static("application/json");
        ([(header::ETAG, etag), (header::CONTENT_TYPE, json)], body).into_response()
    }
}

/// Makes the entity tag of a version, if any, and a SHA-256 digest.
pub fn entity_tag(version: Option<i64>, sha256: &[u8]) -> HeaderValue {
    let mut tag = String::with_capacity(48);
    tag.push('"');
    if let Some(version) = version {
        tag.push_str(&version.to_string());
        tag.push('.');
    }
    let hash = sha256.iter().take(HASH_BYTES).flat_map(|byte| [byte >> 4, byte & 15]);
    tag.extend(
        hash.map(|nibble| char::from_digit(u32::from(nibble), 16).expect("four bits are one hexadecimal digit")),
    );
    tag.push('"');
    HeaderValue::from_str(&tag).expect("quoted digits are a header value")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use contracts::TraceParent;

    use super::*;
    use crate::http::request_context::RequestContext;

    async fn answer(if_none_match: &[&str], version: Option<i64>, value: [i32; 2]) -> Response {
        let if_none_match = if_none_match.iter().map(|tag| tag.parse().expect("a header value")).collect();
        let context = RequestContext { trace: TraceParent::new(), permit: Cell::default(), if_none_match };
        request_context::scope(context, async { Representation { value, version }.into_response() }).await
    }

    #[tokio::test]
    async fn an_unchanged_representation_is_not_sent_again() {
        let tag = |response: &Response| response.headers()[header::ETAG].to_str().expect("ASCII").to_owned();
        let first = tag(&answer(&[], None, [1, 2]).await);
        assert_eq!((first.len(), first.contains('.')), (26, false));
        for held in [first.as_str(), "*", &format!("W/{first}"), &format!("\"a\", {first}")] {
            assert_eq!(answer(&[held], None, [1, 2]).await.status(), StatusCode::NOT_MODIFIED, "{held}");
        }
        assert_eq!(answer(&[&first], None, [1, 3]).await.status(), StatusCode::OK);
        let versioned = tag(&answer(&[], Some(7), [1, 2]).await);
        assert_eq!(versioned, first.replacen('"', "\"7.", 1));
        assert_eq!(answer(&[&first], Some(7), [1, 2]).await.status(), StatusCode::OK);
        assert_eq!(answer(&[&versioned], Some(7), [1, 2]).await.status(), StatusCode::NOT_MODIFIED);
    }
}
