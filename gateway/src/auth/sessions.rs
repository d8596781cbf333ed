//! A sign-in is a family of `sessions` rows, one a refresh token: the first is opened here, every rotation adds a child.
//! A family has at most one live row, and it is revoked as a whole. Tokens are kept as hashes.

use contracts::Role;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Auth;
use crate::extract::ClientAddress;

const USER_AGENT_CHARS_MAX: usize = 300;

/// The tokens of a sign-in or a refresh.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// A JWT, for the header `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// The access token's life, seconds.
    expires_in: i64,
    /// Opaque; good for one refresh.
    refresh_token: String,
    /// The refresh token's life if it is not used, seconds.
    refresh_expires_in: i64,
    /// The signed-in user.
    user: SignedIn,
}

/// The signed-in user.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SignedIn {
    /// `users.id`.
    pub id: Uuid,
    /// The address of the account.
    pub email: String,
    /// The user's role.
    #[serde(serialize_with = "role_name")]
    #[schema(value_type = String, example = "student")]
    pub role: Role,
    /// As mails address the user.
    pub full_name: Option<String>,
}

fn role_name<S: serde::Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.name())
}

/// A refresh token and the family that it belongs to.
pub struct Grant {
    /// `sessions.family_id`.
    pub family_id: Uuid,
    /// The live token of the family.
    pub refresh_token: RefreshToken,
    /// Its life if it is not used, seconds.
    pub refresh_expires_in: i64,
}

/// 256 bits that nobody can guess, as 64 hexadecimal digits.
pub struct RefreshToken(SecretString);

impl RefreshToken {
    /// Makes the first token of a sign-in.
    pub fn random() -> Self {
        Self::of(&rand::random::<[u8; 32]>())
    }

    /// Wraps the token that a client sent.
    pub fn sent(token: SecretString) -> Self {
        Self(token)
    }

    /// Derives the token that follows this one from it and our key, so that a refresh which is repeated because its
    /// answer was lost gets the same token again, and the family does not fork.
    pub fn successor(&self, key: &Hmac<Sha256>) -> Self {
        let mut mac = key.clone();
        mac.update(self.0.expose_secret().as_bytes());
        Self::of(&mac.finalize().into_bytes())
    }

    /// Returns the value of `sessions.refresh_hash`.
    pub fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.0.expose_secret()).to_vec()
    }

    fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(String::with_capacity(64), |text, byte| format!("{text}{byte:02x}")).into())
    }
}

/// The client that a session is used from.
pub struct Device<'a> {
    /// Its address.
    pub address: ClientAddress,
    /// `User-Agent`, as sent.
    pub user_agent: Option<&'a str>,
}

impl<'a> Device<'a> {
    /// Reads the device of a request.
    pub fn new(address: ClientAddress, headers: &'a axum::http::HeaderMap) -> Self {
        Self { address, user_agent: headers.get(axum::http::header::USER_AGENT).and_then(|value| value.to_str().ok()) }
    }

    /// Returns `User-Agent`, cut to what is stored.
    pub fn user_agent(&self) -> Option<String> {
        self.user_agent.map(|name| name.chars().take(USER_AGENT_CHARS_MAX).collect())
    }
}

impl Auth {
    /// Opens a family for the user.
    pub async fn open_session(
        &self,
        tx: &mut PgConnection,
        user: &SignedIn,
        device: &Device<'_>,
    ) -> sqlx::Result<Grant> {
        let (idle_secs, absolute_secs) = self.refresh_secs(user.role);
        let (family_id, refresh_token) = (contracts::ids::new_id(), RefreshToken::random());
        sqlx::query!(
            "INSERT INTO sessions (id, user_id, family_id, refresh_hash, ip, user_agent, expires_at, absolute_expires_at)
             VALUES ($1, $2, $1, $3, $4::text::inet, $5, now() + make_interval(secs => $6), now() + make_interval(secs => $7))",
            family_id,
            user.id,
            refresh_token.hash(),
            device.address.text(),
            device.user_agent(),
            idle_secs,
            absolute_secs
        )
        .execute(tx)
        .await?;
        Ok(Grant { family_id, refresh_token, refresh_expires_in: idle_secs as i64 })
    }

    /// Makes the answer to a sign-in or refresh.
    pub fn tokens(&self, user: SignedIn, grant: Grant) -> Tokens {
        Tokens {
            access_token: self.mint(user.id, user.role, grant.family_id),
            token_type: "Bearer",
            expires_in: self.access_secs(),
            refresh_token: grant.refresh_token.0.expose_secret().to_owned(),
            refresh_expires_in: grant.refresh_expires_in,
            user,
        }
    }
}

/// Revokes a family of this user; `false` where none is alive. In the order of ids, so that two at once do not
/// wait for each other. A child that a rotation adds meanwhile is born dead: a refresh asks for the whole family.
pub async fn revoke_family(tx: &mut PgConnection, user_id: Uuid, family_id: Uuid) -> sqlx::Result<bool> {
    let revoked = sqlx::query!(
        "WITH family AS (
             SELECT id FROM sessions WHERE family_id = $1 AND user_id = $2 AND revoked_at IS NULL ORDER BY id FOR UPDATE
         )
         UPDATE sessions
         SET    revoked_at = now()
         FROM   family
         WHERE  sessions.id = family.id",
        family_id,
        user_id
    )
    .execute(tx)
    .await?;
    Ok(revoked.rows_affected() > 0)
}

#[cfg(test)]
mod tests {
    use hmac::KeyInit;

    use super::*;

    #[test]
    fn a_successor_is_always_the_same_and_needs_the_key() {
        let key = |secret: &[u8]| Hmac::<Sha256>::new_from_slice(secret).expect("any length");
        let token = RefreshToken::random();
        assert_eq!(token.successor(&key(b"a")).hash(), token.successor(&key(b"a")).hash());
        assert_ne!(token.successor(&key(b"a")).hash(), token.successor(&key(b"b")).hash());
        assert_ne!(token.successor(&key(b"a")).hash(), RefreshToken::random().successor(&key(b"a")).hash());
        assert_eq!(token.0.expose_secret().len(), 64);
    }
}
