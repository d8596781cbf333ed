//! Faults on demand, behind the feature `planted-bugs`: points at which the process stops so that a test can SIGKILL it
//! there, and bugs that the tests must notice. Off unless the settings name one.

use std::sync::OnceLock;

use serde::Deserialize;

/// What to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Stop for ever before COMMIT.
    HoldBeforeCommit,
    /// Stop for ever after COMMIT.
    HoldAfterCommit,
    /// Stop for ever after the first follow-up of a batch.
    HoldBetweenFollowUps,
    /// Stop for ever before the ack.
    HoldBeforeAck,
    /// SIGKILL on whatever event contains [`KILLER`].
    KillOnMarker,
    /// Bug: ack first, publish the follow-ups then.
    AckBeforeFollowUps,
    /// Bug: do not look whether an event is settled, and forget the constraint.
    InboxOff,
}

/// A point on the way of a batch.
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
pub const KILLER: &str = "kill-this-process";

static INJECTED: OnceLock<Fault> = OnceLock::new();

/// Plants a fault in this process, once.
pub fn inject(fault: Fault) {
    tracing::warn!(?fault, "a fault is planted on purpose");
    INJECTED.get_or_init(|| fault);
}

/// Whether the process stops at this point.
pub(super) fn holds_at(point: Point) -> bool {
    matches!(
        (INJECTED.get(), point),
        (Some(Fault::HoldBeforeCommit), Point::BeforeCommit)
            | (Some(Fault::HoldAfterCommit), Point::AfterCommit)
            | (Some(Fault::HoldBetweenFollowUps), Point::BetweenFollowUps)
            | (Some(Fault::HoldBeforeAck), Point::BeforeAck)
    ) || (point == Point::BetweenFollowUps && ack_before_follow_ups())
}

/// Stops here for ever if told to; the line in the log is what a test waits for before it kills the process.
pub(super) async fn reach(point: Point) {
    if holds_at(point) {
        tracing::warn!(?point, "holding");
        std::future::pending::<()>().await;
    }
}

/// Whether that bug is planted.
pub(super) fn ack_before_follow_ups() -> bool {
    INJECTED.get() == Some(&Fault::AckBeforeFollowUps)
}

/// Whether that bug is planted.
pub(super) fn inbox_off() -> bool {
    INJECTED.get() == Some(&Fault::InboxOff)
}

/// Dies, as by the hand of the kernel, if this event is the one.
pub(super) async fn die_of(event: &super::raw_event::RawEvent) {
    let marked = event.bytes.windows(KILLER.len()).any(|window| window == KILLER.as_bytes());
    if marked && INJECTED.get() == Some(&Fault::KillOnMarker) {
        let pid = std::process::id().to_string();
        let _ = tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await;
        std::future::pending::<()>().await;
    }
}
