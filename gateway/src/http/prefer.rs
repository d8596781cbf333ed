//! `Prefer: wait=N` (RFC 7240 §4.3): how long a client is willing to wait for the result of its command.

use axum::http::{HeaderMap, HeaderName};

/// The longest that a client may ask to wait, in seconds.
pub const WAIT_SECONDS_MAX: u64 = 30;
/// `Preference-Applied` (RFC 7240 §3): the answer is the awaited result.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Reads `Prefer: wait=N`, in seconds; other preferences are ignored, as the standard demands.
pub fn preferred_wait_seconds(headers: &HeaderMap) -> Option<u64> {
    let preferences = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|value| value.split(','))
        .filter_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse().ok())?
        })
        .next()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_preference_for_waiting_is_found_among_others() {
        for (header, seconds) in [
            ("wait=5", Some(5)),
            ("respond-async, wait=10", Some(10)),
            ("Wait = \"3\"; foo=bar", Some(3)),
            ("wait=soon", None),
            ("waiting=5", None),
            ("return=minimal", None),
        ] {
            let headers = HeaderMap::from_iter([(HeaderName::from_static("prefer"), HeaderValue::from_static(header))]);
            assert_eq!(preferred_wait_seconds(&headers), seconds, "{header}");
        }
    }
}
