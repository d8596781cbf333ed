//! The claims of an access token (RFC 7519, after RFC 9068), for the gateway that issues and verifies them and for the
//! command line that mints them for load tests. Signing is the caller's business; the key is identified by a `kid` that
//! is derived from it, so that two programs with the same secret agree on its name without configuration.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Role;

/// `iss` of every access token.
pub const ISSUER: &str = "registrar";
/// `aud` of every access token.
pub const AUDIENCE: &str = "registrar-api";
/// Lifetime of an access token, seconds.
pub const LIFETIME_SECS: i64 = 600;

/// The claims of an access token. All are required; times are whole seconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Always [`ISSUER`].
    pub iss: String,
    /// Always [`AUDIENCE`].
    pub aud: String,
    /// `users.id`.
    pub sub: Uuid,
    /// The id of this token.
    pub jti: Uuid,
    /// The sign-in that it belongs to: `sessions.family_id`. Revoked as a whole.
    pub sid: Uuid,
    /// The user's role.
    pub role: Role,
    /// Issued at.
    pub iat: u64,
    /// Not valid before.
    pub nbf: u64,
    /// Expires at: not valid from then on.
    pub exp: u64,
}

impl AccessClaims {
    /// Claims that are valid from `now` for `lifetime_secs`.
    pub fn new(user_id: Uuid, role: Role, sid: Uuid, now: DateTime<Utc>, lifetime_secs: i64) -> Self {
        let seconds = |at: i64| u64::try_from(at).unwrap_or_default();
        let issued = now.timestamp();
        Self {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user_id,
            jti: crate::ids::new_id(),
            sid,
            role,
            iat: seconds(issued),
            nbf: seconds(issued),
            exp: seconds(issued.saturating_add(lifetime_secs)),
        }
    }
}

/// The `kid` of a key: 16 hexadecimal digits of SHA-256 over its algorithm and its secret (HS256) or public (EdDSA)
/// bytes.
pub fn kid(algorithm: &str, key: &[u8]) -> String {
    let digest = Sha256::new()
        .chain_update("registrar kid\0")
        .chain_update(algorithm)
        .chain_update([0])
        .chain_update(key)
        .finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_valid_for_the_given_lifetime() {
        let now = DateTime::from_timestamp(1_767_225_600, 0).expect("in range");
        let claims = AccessClaims::new(Uuid::nil(), Role::Student, Uuid::max(), now, LIFETIME_SECS);
        assert_eq!((claims.iat, claims.nbf, claims.exp), (1_767_225_600, 1_767_225_600, 1_767_226_200));
        let json = serde_json::to_value(&claims).expect("serialises");
        assert_eq!(json["role"], "student");
        assert_eq!(serde_json::from_value::<AccessClaims>(json).expect("reads"), claims);
    }

    #[test]
    fn different_keys_have_different_kids() {
        assert_eq!(kid("HS256", b"a"), kid("HS256", b"a"));
        assert_ne!(kid("HS256", b"a"), kid("HS256", b"b"));
        assert_ne!(kid("HS256", b"a"), kid("EdDSA", b"a"));
        assert_eq!(kid("HS256", b"a").len(), 16);
    }
}
