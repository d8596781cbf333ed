//! Authentication: access tokens, sessions, passwords, mailed links, and who may see what. A request with a good access
//! token costs no query: sign-ins that were ended while their tokens live are kept in memory. The endpoints are in
//! `api::auth`.

pub mod attempts;
mod caller;
mod key_ring;
pub mod mailed_tokens;
pub mod passwords;
mod revocations;
mod scope;
pub mod sessions;

use contracts::{ProblemType, Role, access_token::AccessClaims, amqp::Publisher, tokens::MailTokens};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::jwk::JwkSet;
use secrecy::ExposeSecret;
use sha2::Sha256;
use uuid::Uuid;

use crate::{
    config::{AuthSettings, GatewaySecrets},
    http::ApiResult,
};
use {attempts::Attempts, key_ring::KeyRing, passwords::Passwords, revocations::Revocations};

pub use caller::{Caller, MaybeCaller};
pub use key_ring::AuthError;
pub use scope::{Records, Scope};

/// Everything that authentication needs; one for the process.
pub struct Auth {
    /// Lifetimes and limits.
    pub settings: AuthSettings,
    /// The password hashing pool.
    pub passwords: Passwords,
    /// Recent attempts to sign in.
    pub attempts: Attempts,
    /// Derives the successors of refresh tokens.
    pub refresh_key: Hmac<Sha256>,
    keys: KeyRing,
    revocations: Revocations,
    mail_tokens: MailTokens,
    publisher: Publisher,
}

impl Auth {
    /// Parses the keys and hashes the password that unknown users are measured against.
    ///
    /// # Errors
    /// [`AuthError`] where a key cannot be used.
    pub fn new(settings: &AuthSettings, secrets: &GatewaySecrets, publisher: Publisher) -> Result<Self, AuthError> {
        let secret = secrets.jwt_hs256.expose_secret().as_bytes();
        Ok(Self {
            keys: KeyRing::new(secrets)?,
            revocations: Revocations::default(),
            passwords: Passwords::new(settings)?,
            attempts: Attempts::new(settings.logins_per_minute_and_ip),
            refresh_key: Hmac::new_from_slice(&derivation_key(secret)).expect("HMAC takes a key of any length"),
            mail_tokens: MailTokens::new(secrets.tokens.expose_secret().as_bytes()),
            publisher,
            settings: settings.clone(),
        })
    }

    /// Signs a fresh access token for a sign-in.
    pub fn mint(&self, user_id: Uuid, role: Role, sid: Uuid) -> String {
        self.keys.sign(&AccessClaims::new(user_id, role, sid, chrono::Utc::now(), self.access_secs()))
    }

    /// Returns the bearer of this access token; `None` whatever is wrong with it.
    pub fn authenticate(&self, token: &str) -> Option<Caller> {
        let claims = self.keys.verify(token).ok()?;
        let caller = Caller { user_id: claims.sub, role: claims.role, sid: claims.sid, expires_at: claims.exp };
        (!self.revocations.contains(claims.sid)).then_some(caller)
    }

    /// Tells whether this sign-in was ended: streams that began under a token of it must end too.
    pub fn is_revoked(&self, sid: Uuid) -> bool {
        self.revocations.contains(sid)
    }

    /// Returns the public keys of access tokens (RFC 7517 §5); none while only a shared secret signs them.
    pub fn public_keys(&self) -> JwkSet {
        self.keys.public_keys()
    }

    /// Returns a refresh token's life for this role, seconds: unused, and at most.
    pub fn refresh_secs(&self, role: Role) -> (f64, f64) {
        let (idle, absolute) = if role.is_staff() {
            (self.settings.staff_refresh_idle_minutes, self.settings.staff_refresh_absolute_minutes)
        } else {
            (self.settings.refresh_idle_minutes, self.settings.refresh_absolute_minutes)
        };
        (f64::from(idle) * 60.0, f64::from(absolute) * 60.0)
    }

    /// An access token's life, seconds.
    fn access_secs(&self) -> i64 {
        i64::from(self.settings.access_minutes) * 60
    }
}

/// Reads a role as the database has it.
///
/// # Errors
/// 500 for a role that the contracts do not know.
pub fn stored_role(name: &str) -> ApiResult<Role> {
    name.parse().map_err(|error| {
        tracing::error!(%error, "a role in the database that the contracts do not know");
        ProblemType::Internal.into()
    })
}

/// The key that successors of refresh tokens are derived with: of the signing secret, for this use alone.
fn derivation_key(secret: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(b"registrar refresh tokens");
    mac.finalize().into_bytes().to_vec()
}
