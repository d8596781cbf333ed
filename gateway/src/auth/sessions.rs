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

use super::{Auth, ClientIp};

const USER_AGENT_CHARS_MAX: usize = 300;

/// What a client is given at sign-in and at every refresh.
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
    /// Who is signed in.
    user: SignedIn,
}

/// Who is signed in.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SignedIn {
    /// `users.id`.
    pub(super) id: Uuid,
    /// The address of the account.
    pub(super) email: String,
    /// What the user may do.
    #[serde(serialize_with = "role_name")]
    #[schema(value_type = String, example = "student")]
    pub(super) role: Role,
    /// As mails address the user.
    pub(super) full_name: Option<String>,
}

fn role_name<S: serde::Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.name())
}

/// A refresh token and the family that it belongs to.
pub(super) struct Grant {
    pub(super) family_id: Uuid,
    pub(super) refresh_token: RefreshToken,
    pub(super) refresh_expires_in: i64,
}

/// 256 bits that nobody can guess, as 64 hexadecimal digits.
pub(super) struct RefreshToken(SecretString);

impl RefreshToken {
    /// Of a new sign-in.
    pub(super) fn random() -> Self {
        Self::of(&rand::random::<[u8; 32]>())
    }

    /// What a client sent.
    pub(super) fn sent(token: SecretString) -> Self {
        Self(token)
    }

    /// The one that follows this: a function of it and of our key, so that a refresh which is repeated because its answer
    /// was lost gets the same token again, and the family does not fork.
    pub(super) fn successor(&self, key: &Hmac<Sha256>) -> Self {
        let mut mac = key.clone();
        mac.update(self.0.expose_secret().as_bytes());
        Self::of(&mac.finalize().into_bytes())
    }

    /// `sessions.refresh_hash`.
    pub(super) fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.0.expose_secret()).to_vec()
    }

    fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(String::with_capacity(64), |text, byte| format!("{text}{byte:02x}")).into())
    }
}

/// Where a session is used.
pub(super) struct Device<'a> {
    pub(super) ip: ClientIp,
    pub(super) user_agent: Option<&'a str>,
}

impl<'a> Device<'a> {
    pub(super) fn new(ip: ClientIp, headers: &'a axum::http::HeaderMap) -> Self {
        Self { ip, user_agent: headers.get(axum::http::header::USER_AGENT).and_then(|value| value.to_str().ok()) }
    }

    pub(super) fn user_agent(&self) -> Option<String> {
        self.user_agent.map(|name| name.chars().take(USER_AGENT_CHARS_MAX).collect())
    }
}

impl Auth {
    /// Opens a family for the user.
    pub(super) async fn open_session(
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
            device.ip.text(),
            device.user_agent(),
            idle_secs,
            absolute_secs
        )
        .execute(tx)
        .await?;
        Ok(Grant { family_id, refresh_token, refresh_expires_in: idle_secs as i64 })
    }

    /// What the client is answered.
    pub(super) fn tokens(&self, user: SignedIn, grant: Grant) -> Tokens {
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

/// Revokes a family of this user; `false` where there is none alive. In the order of ids, so that two at once do not
/// wait for each other. A child that a rotation adds meanwhile is born dead: a refresh asks for the whole family.
pub(super) async fn revoke_family(tx: &mut PgConnection, user_id: Uuid, family_id: Uuid) -> sqlx::Result<bool> {
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
