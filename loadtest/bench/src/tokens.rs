//! Access tokens of students, signed with the gateways' own key, as `workers tokens` mints them.

use chrono::Utc;
use contracts::{
    Role,
    access_token::{self, AccessClaims, LIFETIME_SECS},
    ids,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use uuid::Uuid;

/// Signs tokens.
pub struct Mint {
    key: EncodingKey,
    header: Header,
}

impl Mint {
    /// With the gateways' HS256 secret.
    pub fn new(secret: &str) -> Self {
        let kid = Some(access_token::kid("HS256", secret.as_bytes()));
        Self {
            key: EncodingKey::from_secret(secret.as_bytes()),
            header: Header { kid, ..Header::new(Algorithm::HS256) },
        }
    }

    /// A token that holds for ten minutes from now.
    ///
    /// # Errors
    /// Where the claims cannot be signed.
    pub fn token(&self, user_id: Uuid, role: Role) -> anyhow::Result<String> {
        let claims = AccessClaims::new(user_id, role, ids::new_id(), Utc::now(), LIFETIME_SECS);
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }
}
