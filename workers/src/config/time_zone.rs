//! The institute's time zone, by its IANA name.

use serde::{Deserialize, Deserializer};

/// An IANA time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeZone(pub chrono_tz::Tz);

impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map(TimeZone).map_err(|_| {
            serde::de::Error::custom(format!("`{name}` is no IANA time zone; write one such as `Asia/Kolkata`"))
        })
    }
}
