//! Who is calling: sign-in, refresh, mailed links, and the access tokens that every other request shows. A request with
//! a good access token costs no query: what must be known at once of an ended sign-in is kept in memory.

mod access_token;
mod attempts;
mod audit;
mod caller;
mod key_ring;
mod login;
mod logout;
mod magic_link;
mod mailed_tokens;
mod passwords;
mod recovery;
mod refresh;
mod revocations;
mod sessions;
mod settings;

use contracts::{Role, access_token::AccessClaims};
use hmac::{Hmac, KeyInit};
use secrecy::ExposeSecret;
use sha2::Sha256;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{config::Secrets, state::App};
use {attempts::Attempts, key_ring::KeyRing, passwords::Passwords, revocations::Revocations};

pub use attempts::ClientIp;
pub use caller::{Caller, MaybeCaller};
pub use key_ring::AuthError;
pub use settings::AuthSettings;

/// Everything that sign-in needs, one for the process.
pub struct Auth {
    settings: AuthSettings,
    keys: KeyRing,
    revocations: Revocations,
    passwords: Passwords,
    attempts: Attempts,
    refresh_key: Hmac<Sha256>,
}

impl Auth {
    /// Parses the keys and hashes the password that unknown users are measured against.
    ///
    /// # Errors
    /// [`AuthError`] where a key cannot be used.
    pub fn new(settings: &AuthSettings, secrets: &Secrets) -> Result<Self, AuthError> {
        let secret = secrets.jwt_hs256.expose_secret().as_bytes();
        Ok(Self {
            keys: KeyRing::new(secrets)?,
            revocations: Revocations::default(),
            passwords: Passwords::new(settings)?,
            attempts: Attempts::new(settings.logins_per_minute_and_ip),
            refresh_key: Hmac::new_from_slice(&refresh::derivation_key(secret))
                .expect("HMAC takes a key of any length"),
            settings: settings.clone(),
        })
    }

    /// A fresh access token for a sign-in.
    pub fn mint(&self, user_id: Uuid, role: Role, sid: Uuid) -> String {
        self.keys.sign(&AccessClaims::new(user_id, role, sid, chrono::Utc::now(), self.access_secs()))
    }

    /// Who the bearer of this access token is; `None` whatever is wrong with it.
    pub fn authenticate(&self, token: &str) -> Option<Caller> {
        let claims = self.keys.verify(token).ok()?;
        let caller = Caller { user_id: claims.sub, role: claims.role, sid: claims.sid, expires_at: claims.exp };
        (!self.revocations.contains(claims.sid)).then_some(caller)
    }

    /// Whether this sign-in was ended: what began under a token of it must end too.
    pub fn is_revoked(&self, sid: Uuid) -> bool {
        self.revocations.contains(sid)
    }

    /// An access token's life, seconds.
    fn access_secs(&self) -> i64 {
        i64::from(self.settings.access_minutes) * 60
    }

    /// A refresh token's life for this role, seconds: unused, and at most.
    fn refresh_secs(&self, role: Role) -> (f64, f64) {
        let (idle, absolute) = if role.is_staff() {
            (self.settings.staff_refresh_idle_minutes, self.settings.staff_refresh_absolute_minutes)
        } else {
            (self.settings.refresh_idle_minutes, self.settings.refresh_absolute_minutes)
        };
        (f64::from(idle) * 60.0, f64::from(absolute) * 60.0)
    }
}

/// The routes of sign-in.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(login::login))
        .routes(routes!(refresh::refresh))
        .routes(routes!(logout::logout))
        .routes(routes!(magic_link::exchange))
        .routes(routes!(recovery::forgot))
        .routes(routes!(recovery::reset))
        .routes(routes!(recovery::verify))
        .routes(routes!(access_token::public_keys))
}

/// The routes that list and end the caller's own sign-ins.
pub fn sessions_of_caller() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(logout::list)).routes(routes!(logout::end_one))
}
