//! bcrypt, in a bounded pool that sheds: a hash costs a quarter of a second by intent, so a rush of sign-ins must not
//! take the processor from everything else. A password that bcrypt would truncate is refused, never truncated.

use std::sync::Arc;

use contracts::{Problem, ProblemType, validation::Checks};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use super::AuthError;
use crate::{config::AuthSettings, http::ApiError};

/// bcrypt ignores everything beyond.
const PASSWORD_BYTES_MAX: usize = 72;
const PASSWORD_CHARS_MIN: usize = 10;
const RETRY_AFTER_SECS_MAX: u64 = 5;

/// A bounded pool that hashes and verifies passwords.
pub struct Passwords {
    cost: u32,
    dummy: Arc<str>,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Passwords {
    /// A pool of this size; hashes a dummy password with the configured cost.
    ///
    /// # Errors
    /// A cost that bcrypt does not take.
    pub fn new(settings: &AuthSettings) -> Result<Self, AuthError> {
        Ok(Self {
            cost: settings.bcrypt_cost,
            dummy: bcrypt::hash(uuid::Uuid::new_v4().as_bytes(), settings.bcrypt_cost)?.into(),
            running: Arc::new(Semaphore::new(settings.hashing_max)),
            admitted: Arc::new(Semaphore::new(settings.hashing_max + settings.hashing_waiting_max)),
        })
    }

    /// Tells whether this is the password of this hash. Without a hash, or with a password longer than any may be, the
    /// answer takes as long and is `false`.
    ///
    /// # Errors
    /// 503 when too many wait already.
    pub async fn verify(&self, password: &SecretString, hash: Option<&str>) -> Result<bool, ApiError> {
        let fits = password.expose_secret().len() <= PASSWORD_BYTES_MAX;
        let (hash, possible) = match hash {
            Some(hash) if fits => (Arc::from(hash), true),
            _ => (self.dummy.clone(), false),
        };
        let password = password.clone();
        let matches = self.run(move || bcrypt::verify(password.expose_secret(), &hash)).await?;
        Ok(matches && possible)
    }

    /// Hashes a password that [`check`] let pass.
    ///
    /// # Errors
    /// 503 when too many wait already.
    pub async fn hash(&self, password: &SecretString) -> Result<String, ApiError> {
        let (password, cost) = (password.clone(), self.cost);
        self.run(move || bcrypt::hash(password.expose_secret(), cost)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> bcrypt::BcryptResult<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let Ok(_admitted) = self.admitted.try_acquire() else {
            let retry_after_secs = rand::rng().random_range(1..=RETRY_AFTER_SECS_MAX);
            return Err(ApiError::from(ProblemType::Overloaded).retry_after(retry_after_secs));
        };
        // Held by the work itself: a client that goes away does not free the processor.
        let running = self.running.clone().acquire_owned().await.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(running);
            result
        });
        match done.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(internal(&error)),
            Err(error) => Err(internal(&error)),
        }
    }
}

/// Checks a new password.
///
/// # Errors
/// 422 with every rule that it breaks.
pub fn check(password: &SecretString) -> Result<(), ApiError> {
    let text = password.expose_secret();
    Checks::new()
        .ensure(
            text.chars().count() >= PASSWORD_CHARS_MIN,
            "password",
            "too_short",
            &format!("must have at least {PASSWORD_CHARS_MIN} characters"),
        )
        .ensure(
            text.len() <= PASSWORD_BYTES_MAX,
            "password",
            "too_long",
            &format!("must have at most {PASSWORD_BYTES_MAX} bytes in UTF-8"),
        )
        .ensure(!text.contains('\0'), "password", "control_character", "must not contain NUL")
        .finish()
        .map_err(|errors| Problem::new(ProblemType::ValidationFailed).errors(errors).into())
}

fn internal(error: &(dyn std::error::Error + 'static)) -> ApiError {
    tracing::error!(error, "a password could not be hashed");
    ProblemType::Internal.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords(hashing_max: usize, hashing_waiting_max: usize) -> Passwords {
        let settings = AuthSettings { bcrypt_cost: 4, hashing_max, hashing_waiting_max, ..AuthSettings::default() };
        Passwords::new(&settings).expect("cost 4 is allowed")
    }

    #[tokio::test]
    async fn a_password_matches_its_hash_alone_and_is_never_truncated() {
        let passwords = passwords(1, 8);
        let exact: SecretString = "p".repeat(72).into();
        let hash = passwords.hash(&exact).await.expect("hashes");
        assert!(passwords.verify(&exact, Some(&hash)).await.expect("verifies"));
        assert!(!passwords.verify(&"p".repeat(73).into(), Some(&hash)).await.expect("verifies"));
        assert!(!passwords.verify(&"p".repeat(71).into(), Some(&hash)).await.expect("verifies"));
        assert!(!passwords.verify(&exact, None).await.expect("verifies"));
    }

    #[tokio::test]
    async fn too_many_at_once_are_shed() {
        let passwords = passwords(1, 0);
        let _held = passwords.admitted.try_acquire().expect("free");
        assert!(passwords.hash(&"correct horse".into()).await.is_err());
    }

    #[test]
    fn a_new_password_keeps_the_rules() {
        assert!(check(&"correct horse".into()).is_ok());
        assert!(check(&"p".repeat(72).into()).is_ok());
        for bad in ["short", "nul\0nul\0nul", &"p".repeat(73)] {
            assert!(check(&bad.into()).is_err(), "{bad}");
        }
    }
}
