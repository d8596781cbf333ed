//! Access tokens, signed with the gateways' key as `workers tokens` does.

use chrono::Utc;
use contracts::{
    Role,
    access_token::{self, AccessClaims, LIFETIME_SECS},
    ids,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use uuid::Uuid;

/// Signer of access tokens.
pub(crate) struct TokenSigner {
    key: EncodingKey,
    header: Header,
}

impl TokenSigner {
    /// A signer with the gateways' HS256 secret.
    pub(crate) fn new(secret: &str) -> Self {
        let kid = Some(access_token::kid("HS256", secret.as_bytes()));
        Self {
            key: EncodingKey::from_secret(secret.as_bytes()),
            header: Header { kid, ..Header::new(Algorithm::HS256) },
        }
    }

    /// Returns a token that is valid for ten minutes from now.
    ///
    /// # Errors
    /// Where the claims cannot be signed.
    pub(crate) fn token(&self, user_id: Uuid, role: Role) -> anyhow::Result<String> {
        let claims = AccessClaims::new(user_id, role, ids::new_id(), Utc::now(), LIFETIME_SECS);
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }
}
