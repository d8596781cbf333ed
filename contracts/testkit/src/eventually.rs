//! Waiting on a condition. The only place in the tests that sleeps.

use std::time::{Duration, Instant};

const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 200;
const GRACE: Duration = Duration::from_secs(1);

/// The result of a polled closure: `bool`, or `Option` of the awaited value.
pub trait Condition {
    /// The value that `eventually` returns.
    type Value;

    /// The value, once the condition is met.
    fn met(self) -> Option<Self::Value>;
}

impl Condition for bool {
    type Value = ();

    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn met(self) -> Option<T> {
        self
    }
}

/// Polls until the condition is met, at growing intervals of 5 to 200 ms.
///
/// # Panics
/// Where it is not met within the limit, naming what was awaited.
pub async fn eventually<C, F, Fut>(awaited: &str, limit: Duration, poll: F) -> C::Value
where
    C: Condition,
    F: FnMut() -> Fut,
    Fut: Future<Output = C>,
{
    within(limit, poll).await.unwrap_or_else(|| panic!("not within {limit:?}: {awaited}"))
}

/// As [`eventually`], but returns `None` where the condition is not met within the limit.
pub(crate) async fn within<C, F, Fut>(limit: Duration, mut poll: F) -> Option<C::Value>
where
    C: Condition,
    F: FnMut() -> Fut,
    Fut: Future<Output = C>,
{
    let deadline = Instant::now() + limit;
    let mut pause_ms = POLL_MS_MIN;
    while Instant::now() < deadline {
        // A poll that hangs does not count; one that is at most the grace late does.
        let polled = tokio::time::timeout_at((deadline + GRACE).into(), poll()).await;
        if let Some(value) = polled.ok().and_then(Condition::met) {
            return Some(value);
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(POLL_MS_MAX);
    }
    None
}
