//! The signed-in caller of a request. Whatever is wrong with a token, the answer is the same 401.

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use contracts::{Principal, ProblemType, Role};
use uuid::Uuid;

use super::Auth;
use crate::http::ApiError;

/// The bearer of a valid access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `users.id`.
    pub user_id: Uuid,
    /// The user's role.
    pub role: Role,
    /// The sign-in: `sessions.family_id`.
    pub sid: Uuid,
    /// The access token's `exp`: seconds since 1970.
    pub expires_at: u64,
}

impl Caller {
    /// Admits these roles only.
    ///
    /// # Errors
    /// 403 for any other role.
    pub fn require(&self, roles: &[Role]) -> Result<(), ApiError> {
        if roles.contains(&self.role) { Ok(()) } else { Err(ProblemType::Forbidden.into()) }
    }

    /// Returns the caller as an event's principal.
    pub const fn principal(&self) -> Principal {
        Principal::User { id: self.user_id, role: self.role }
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Arc<Auth>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        MaybeCaller::from_request_parts(parts, state).await?.0.ok_or_else(|| ProblemType::Unauthenticated.into())
    }
}

/// The caller, where a token was sent: no token is fine, a bad token is a 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaybeCaller(pub Option<Caller>);

impl MaybeCaller {
    /// Returns the caller as an event's principal.
    pub fn principal(&self) -> Principal {
        self.0.map_or(Principal::Anonymous, |caller| caller.principal())
    }
}

impl<S> FromRequestParts<S> for MaybeCaller
where
    S: Send + Sync,
    Arc<Auth>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(Self(None));
        }
        let auth = Arc::<Auth>::from_ref(state);
        let caller = bearer(&parts.headers).and_then(|token| auth.authenticate(token));
        caller.map(|caller| Self(Some(caller))).ok_or_else(|| ProblemType::Unauthenticated.into())
    }
}

/// The token of the one `Authorization` header (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, value.parse().expect("a header value"))).collect()
    }

    #[test]
    fn one_bearer_token_is_read_and_nothing_else() {
        assert_eq!(bearer(&headers(&["Bearer a.b.c"])), Some("a.b.c"));
        assert_eq!(bearer(&headers(&["bEARER  a.b.c"])), Some("a.b.c"));
        for bad in [&["Basic a.b.c"][..], &["a.b.c"], &["Bearer"], &["Bearer a", "Bearer b"], &[]] {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn roles_are_required_by_name() {
        let caller = |role| Caller { user_id: Uuid::max(), role, sid: Uuid::nil(), expires_at: 0 };
        assert!(caller(Role::Admin).require(&[Role::Accountant, Role::Admin]).is_ok());
        assert!(caller(Role::Student).require(&[Role::Accountant, Role::Admin]).is_err());
    }
}
