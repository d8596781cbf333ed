//! Faults on demand: points at which the process stops, so that a test can SIGKILL it there, and bugs that the tests
//! must notice. Only a build with the feature `fault-injection` can inject one, and only where its settings name one; in
//! every other build no fault is ever active, and each function here compiles to nothing.

use serde::Deserialize;

/// A fault that a test asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Stop for ever before COMMIT.
    HoldBeforeCommit,
    /// Stop for ever after COMMIT.
    HoldAfterCommit,
    /// Stop for ever after the first follow-up of a settled group of deliveries.
    HoldBetweenFollowUps,
    /// Stop for ever before the ack.
    HoldBeforeAck,
    /// SIGKILL on whatever event contains [`KILL_MARKER`].
    KillOnMarker,
    /// Bug: ack first, publish the follow-ups afterwards.
    AckBeforeFollowUps,
    /// Bug: do not look whether an event is settled, and keep quiet about the row that is there already.
    InboxOff,
}

/// A point in the life of a message at which a process can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Effects written, not committed.
    BeforeCommit,
    /// Committed, no follow-up sent.
    AfterCommit,
    /// One follow-up confirmed, others not sent.
    BetweenFollowUps,
    /// All follow-ups confirmed, not acked.
    BeforeAck,
}

/// The text that kills a process with [`Fault::KillOnMarker`].
pub const KILL_MARKER: &str = "kill-this-process";

#[cfg(feature = "fault-injection")]
static INJECTED: std::sync::OnceLock<Fault> = std::sync::OnceLock::new();

/// Injects a fault into this process; the first one stays.
#[cfg(feature = "fault-injection")]
pub fn inject(fault: Fault) {
    tracing::warn!(?fault, "a fault is injected on purpose");
    INJECTED.get_or_init(|| fault);
}

#[cfg(feature = "fault-injection")]
fn injected() -> Option<Fault> {
    INJECTED.get().copied()
}

#[cfg(not(feature = "fault-injection"))]
const fn injected() -> Option<Fault> {
    None
}

/// Returns whether the process stops at this point.
pub fn holds_at(point: Point) -> bool {
    matches!(
        (injected(), point),
        (Some(Fault::HoldBeforeCommit), Point::BeforeCommit)
            | (Some(Fault::HoldAfterCommit), Point::AfterCommit)
            | (Some(Fault::HoldBetweenFollowUps | Fault::AckBeforeFollowUps), Point::BetweenFollowUps)
            | (Some(Fault::HoldBeforeAck), Point::BeforeAck)
    )
}

/// Stops for ever at this point if it is the injected one; a test waits for the line in the log before it kills the
/// process.
pub async fn reach(point: Point) {
    if holds_at(point) {
        tracing::warn!(?point, "holding");
        std::future::pending::<()>().await;
    }
}

/// Returns whether [`Fault::AckBeforeFollowUps`] is injected.
pub fn acks_before_follow_ups() -> bool {
    injected() == Some(Fault::AckBeforeFollowUps)
}

/// Returns whether [`Fault::InboxOff`] is injected.
pub fn inbox_is_off() -> bool {
    injected() == Some(Fault::InboxOff)
}

/// Kills the process, as the kernel would, if [`Fault::KillOnMarker`] is injected and one of these events, given as the
/// bytes of each, contains [`KILL_MARKER`].
pub async fn kill_on_marker<'a>(mut events: impl Iterator<Item = &'a [u8]>) {
    let marked = |event: &[u8]| event.windows(KILL_MARKER.len()).any(|window| window == KILL_MARKER.as_bytes());
    if injected() == Some(Fault::KillOnMarker) && events.any(marked) {
        let pid = std::process::id().to_string();
        let _ = tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await;
        std::future::pending::<()>().await;
    }
}
