//! How sign-in is bounded: lifetimes, hashing, limits. The keys themselves are secrets and stand elsewhere.

use serde::Deserialize;

/// Signing in. The section `auth` of the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// An access token's life.
    pub access_minutes: u32,
    /// How long a student's or teacher's session lives unused.
    pub refresh_idle_minutes: u32,
    /// How long it lives at most.
    pub refresh_absolute_minutes: u32,
    /// How long an accountant's or admin's session lives unused.
    pub staff_refresh_idle_minutes: u32,
    /// How long it lives at most.
    pub staff_refresh_absolute_minutes: u32,
    /// How long after a rotation the old refresh token may be sent again (its answer was lost).
    pub refresh_grace_seconds: u32,
    /// bcrypt's cost, a power of two.
    pub bcrypt_cost: u32,
    /// Passwords hashed at the same time.
    pub hashing_max: usize,
    /// Sign-ins that wait for their turn to be hashed; further ones are shed.
    pub hashing_waiting_max: usize,
    /// Attempts to sign in, reset or exchange per minute and address. Loose: a campus is one address.
    pub logins_per_minute_and_ip: u32,
    /// How long a mailed link to set a new password is good for.
    pub reset_link_minutes: u32,
    /// How long a mailed link to sign in is good for.
    pub magic_link_minutes: u32,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            access_minutes: 10,
            refresh_idle_minutes: 7 * 24 * 60,
            refresh_absolute_minutes: 30 * 24 * 60,
            staff_refresh_idle_minutes: 30,
            staff_refresh_absolute_minutes: 8 * 60,
            refresh_grace_seconds: 10,
            bcrypt_cost: bcrypt::DEFAULT_COST,
            hashing_max: 2,
            hashing_waiting_max: 32,
            logins_per_minute_and_ip: 600,
            reset_link_minutes: 60,
            magic_link_minutes: 15,
        }
    }
}

impl AuthSettings {
    /// Returns the relations among these settings: `true` where one holds, and the sentence that names it.
    pub fn relations(&self) -> Vec<(bool, &'static str)> {
        vec![
            (
                (1..=60).contains(&self.access_minutes),
                "auth.access_minutes must be 1 to 60: revoked ones are remembered as long",
            ),
            (
                self.access_minutes < self.staff_refresh_idle_minutes,
                "auth.access_minutes must be less than auth.staff_refresh_idle_minutes",
            ),
            (
                self.access_minutes < self.refresh_idle_minutes,
                "auth.access_minutes must be less than auth.refresh_idle_minutes",
            ),
            (
                self.refresh_idle_minutes <= self.refresh_absolute_minutes,
                "auth.refresh_idle_minutes must not be more than auth.refresh_absolute_minutes",
            ),
            (
                self.staff_refresh_idle_minutes <= self.staff_refresh_absolute_minutes,
                "auth.staff_refresh_idle_minutes must not be more than auth.staff_refresh_absolute_minutes",
            ),
            (self.refresh_grace_seconds <= 60, "auth.refresh_grace_seconds must be at most 60"),
            ((4..=15).contains(&self.bcrypt_cost), "auth.bcrypt_cost must be 4 to 15"),
            (self.hashing_max >= 1, "auth.hashing_max must be at least 1"),
            (self.logins_per_minute_and_ip >= 1, "auth.logins_per_minute_and_ip must be at least 1"),
            (self.reset_link_minutes >= 1, "auth.reset_link_minutes must be at least 1"),
            (self.magic_link_minutes >= 1, "auth.magic_link_minutes must be at least 1"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_a_broken_relation_is_named() {
        assert!(AuthSettings::default().relations().into_iter().all(|(holds, _)| holds));
        let settings = AuthSettings { staff_refresh_idle_minutes: 9 * 60, ..AuthSettings::default() };
        let broken: Vec<_> =
            settings.relations().into_iter().filter(|(holds, _)| !holds).map(|(_, sentence)| sentence).collect();
        assert_eq!(
            broken,
            ["auth.staff_refresh_idle_minutes must not be more than auth.staff_refresh_absolute_minutes"]
        );
    }
}
