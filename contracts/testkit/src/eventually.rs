//! Waiting on a condition. The only place in the tests that sleeps.

use std::time::{Duration, Instant};

const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 200;
const GRACE: Duration = Duration::from_secs(1);

/// What a polled closure answers: `bool`, or `Option` of what is awaited.
pub trait Condition {
    /// What `eventually` hands back.
    type Value;

    /// The value, once it is there.
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

/// Asks until the condition is met, at growing intervals of 5 to 200 ms.
///
/// # Panics
/// Where it is not met within the limit, naming what was awaited.
pub async fn eventually<C, F, Fut>(awaited: &str, limit: Duration, ask: F) -> C::Value
where
    C: Condition,
    F: FnMut() -> Fut,
    Fut: Future<Output = C>,
{
    within(limit, ask).await.unwrap_or_else(|| panic!("not within {limit:?}: {awaited}"))
}

/// The same, leaving it to the caller what to say.
pub(crate) async fn within<C, F, Fut>(limit: Duration, mut ask: F) -> Option<C::Value>
where
    C: Condition,
    F: FnMut() -> Fut,
    Fut: Future<Output = C>,
{
    let deadline = Instant::now() + limit;
    let mut pause_ms = POLL_MS_MIN;
    while Instant::now() < deadline {
        // An answer that hangs is no answer; one that is late still counts.
        let answer = tokio::time::timeout_at((deadline + GRACE).into(), ask()).await;
        if let Some(value) = answer.ok().and_then(Condition::met) {
            return Some(value);
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(POLL_MS_MAX);
    }
    None
}
