//! Limits on attempts to sign in: by address, loosely, since a campus is one address; by account, with a delay that
//! doubles. An account that does not exist is delayed in the same way (in this process), so that the delay reveals nothing.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use contracts::{Problem, ProblemType};
use moka::sync::Cache;

use crate::{extract::ClientAddress, http::ApiError};

/// Failures without a delay.
const FREE_FAILURES: u32 = 5;
/// The longest delay.
const DELAY_SECS_MAX: u64 = 15 * 60;
const WINDOW: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: u64 = 100_000;

/// Recent attempts, by address and by unknown account.
pub struct Attempts {
    per_minute: u32,
    by_ip: Cache<IpAddr, Arc<AtomicU32>>,
    unknown: Cache<String, (u32, Instant)>,
}

impl Attempts {
    /// No attempts yet; at most so many per minute and address.
    pub fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            by_ip: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(WINDOW).build(),
            unknown: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_idle(Duration::from_secs(DELAY_SECS_MAX))
                .build(),
        }
    }

    /// Counts an attempt from this address.
    ///
    /// # Errors
    /// 429 after too many within a minute.
    pub fn admit(&self, ip: ClientAddress) -> Result<(), ApiError> {
        let Some(ip) = ip.0 else { return Ok(()) };
        let count = self.by_ip.get_with(ip, Arc::default).fetch_add(1, Ordering::Relaxed);
        if count < self.per_minute {
            return Ok(());
        }
        Err(too_many("Too many attempts from your network.", WINDOW.as_secs()))
    }

    /// Admits an attempt on an account that does not exist, unless it is delayed.
    ///
    /// # Errors
    /// 429, as for an account that exists.
    pub fn admit_unknown(&self, email: &str) -> Result<(), ApiError> {
        let Some((_, until)) = self.unknown.get(email) else {
            return Ok(());
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Ok(()) } else { Err(locked(left.as_secs() + 1)) }
    }

    /// Remembers a failure of an account that does not exist.
    pub fn unknown_failed(&self, email: &str) {
        let failures = self.unknown.get(email).map_or(0, |(failures, _)| failures) + 1;
        self.unknown.insert(email.to_owned(), (failures, Instant::now() + Duration::from_secs(delay_secs(failures))));
    }
}

/// Returns the delay of an account after so many failures in a row, in seconds: 0, then 1, 2, 4, … up to 15 minutes.
pub fn delay_secs(failures: u32) -> u64 {
    match failures.checked_sub(FREE_FAILURES) {
        None => 0,
        Some(doublings) => (1_u64 << doublings.min(20)).min(DELAY_SECS_MAX),
    }
}

/// Returns a 429 for an account that is delayed for so many seconds more.
pub fn locked(left_secs: u64) -> ApiError {
    too_many("Too many failed attempts on this account.", left_secs)
}

fn too_many(detail: &str, retry_after_secs: u64) -> ApiError {
    ApiError::from(Problem::new(ProblemType::TooManyRequests).detail(detail)).retry_after(retry_after_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_starts_at_the_fifth_failure_doubles_and_is_capped() {
        let delays: Vec<u64> = (1..=8).map(delay_secs).collect();
        assert_eq!(delays, [0, 0, 0, 0, 1, 2, 4, 8]);
        assert_eq!(delay_secs(15), 900);
        assert_eq!(delay_secs(u32::MAX), 900);
    }

    #[test]
    fn an_unknown_account_is_delayed_like_any_other() {
        let attempts = Attempts::new(1);
        for _ in 0..5 {
            assert!(attempts.admit_unknown("nobody@example.org").is_ok());
            attempts.unknown_failed("nobody@example.org");
        }
        assert!(attempts.admit_unknown("nobody@example.org").is_err());
        assert!(attempts.admit_unknown("else@example.org").is_ok());
    }

    #[test]
    fn an_address_is_counted_by_itself() {
        let attempts = Attempts::new(2);
        let (one, two) = (ClientAddress(Some([10, 0, 0, 1].into())), ClientAddress(Some([10, 0, 0, 2].into())));
        assert!(attempts.admit(one).is_ok() && attempts.admit(one).is_ok());
        assert!(attempts.admit(one).is_err());
        assert!(attempts.admit(two).is_ok());
    }
}
