//! `If-Match` (RFC 9110 §13.1.1) on the version of a resource, so that nobody overwrites a change they have not seen.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use contracts::{Problem, ProblemType};

use crate::http::{ApiError, ApiResult};

/// The versions under which a change may be made. An entity tag is `"<version>.<hash>"`; only its version is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// The header was not sent.
    Absent,
    /// `*`: whichever version there is.
    Any,
    /// One of these.
    Versions(Vec<i64>),
}

impl IfMatch {
    /// Checks the current version.
    ///
    /// # Errors
    /// 412 where the resource has another version; 428 where the header is required (RFC 6585 §3) and was not sent.
    pub fn check(&self, version: i64, is_required: bool) -> ApiResult<()> {
        match self {
            Self::Absent if is_required => Err(ProblemType::PreconditionRequired.into()),
            Self::Versions(versions) if !versions.contains(&version) => {
                let detail = "The resource was changed since it was read: read it again, then send its new `ETag`.";
                Err(Problem::new(ProblemType::PreconditionFailed).detail(detail).into())
            }
            _ => Ok(()),
        }
    }

    fn read(headers: &HeaderMap) -> ApiResult<Self> {
        let malformed = || ApiError::invalid_request("`If-Match` must be `*` or a list of entity tags in quotes.");
        let mut found = Self::Absent;
        for value in headers.get_all(header::IF_MATCH) {
            for tag in value.to_str().map_err(|_| malformed())?.split(',').map(str::trim) {
                found = match (found, tag) {
                    (Self::Absent, "*") => Self::Any,
                    (Self::Absent, tag) => Self::Versions(version_of(tag).ok_or_else(malformed)?),
                    (Self::Versions(versions), tag) if tag != "*" => {
                        Self::Versions([versions, version_of(tag).ok_or_else(malformed)?].concat())
                    }
                    _ => return Err(malformed()),
                };
            }
        }
        Ok(found)
    }
}

/// The version of an entity tag: none for a tag of another form, or a weak one, which never matches here; absent where
/// it is no entity tag at all.
fn version_of(tag: &str) -> Option<Vec<i64>> {
    let (is_weak, tag) = tag.strip_prefix("W/").map_or((false, tag), |tag| (true, tag));
    let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
    let version = tag.split_once('.').and_then(|(version, _)| version.parse().ok());
    Some(version.filter(|_| !is_weak).into_iter().collect())
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        Self::read(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Option<IfMatch> {
        let headers = values.iter().map(|value| (header::IF_MATCH, value.parse().expect("a header value"))).collect();
        IfMatch::read(&headers).ok()
    }

    #[test]
    fn the_version_alone_is_compared() {
        assert_eq!(read(&[]), Some(IfMatch::Absent));
        assert_eq!(read(&["*"]), Some(IfMatch::Any));
        assert_eq!(read(&["\"7.abc\", \"9.def\"", "\"11.x\""]), Some(IfMatch::Versions(vec![7, 9, 11])));
        // A weak tag, or one of an unversioned resource, is an entity tag and matches no version.
        assert_eq!(read(&["W/\"7.abc\", \"abc\""]), Some(IfMatch::Versions(Vec::new())));
        for bad in ["7.abc", "\"7.abc", "*, \"7.abc\"", "\"7.abc\", *", ""] {
            assert_eq!(read(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn another_version_is_a_412_and_a_missing_header_a_428_where_it_is_required() {
        let status = |if_match: IfMatch, is_required| {
            if_match.check(7, is_required).map_or_else(|error| error.problem().status, |()| 200)
        };
        assert_eq!(status(IfMatch::Versions(vec![6, 7]), true), 200);
        assert_eq!(status(IfMatch::Versions(vec![6]), false), 412);
        assert_eq!(status(IfMatch::Versions(Vec::new()), false), 412);
        assert_eq!((status(IfMatch::Any, true), status(IfMatch::Absent, false)), (200, 200));
        assert_eq!(status(IfMatch::Absent, true), 428);
    }
}
