//! The state of the publisher's link to the broker: written by the publishing task alone, through one transition
//! function, and read by every caller.
//!
//! Invariants: a blocked link stays blocked until the broker unblocks it, also while confirms are late; only
//! [`LinkEvent::Connected`] leads out of [`LinkState::Down`].

use std::sync::atomic::{AtomicU8, Ordering};

/// The state of the link. Events are sent in [`LinkState::Up`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum LinkState {
    /// Not connected.
    Down = 0,
    /// Connected, and confirms arrive in time.
    Up = 1,
    /// The broker accepts nothing (`connection.blocked`).
    Blocked = 2,
    /// The oldest confirm is late.
    Late = 3,
}

/// An observation that may change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEvent {
    /// Connected, topology declared.
    Connected,
    /// The connection or its channel ended.
    Disconnected,
    /// `connection.blocked`.
    Blocked,
    /// `connection.unblocked`.
    Unblocked,
    /// The oldest confirm is outstanding for longer than the confirm timeout.
    ConfirmLate,
    /// No confirm is late.
    ConfirmsCurrent,
}

impl LinkState {
    /// The state after an event.
    pub const fn next(self, event: LinkEvent) -> Self {
        match (self, event) {
            (_, LinkEvent::Connected) => Self::Up,
            (_, LinkEvent::Disconnected) | (Self::Down, _) => Self::Down,
            (_, LinkEvent::Blocked) => Self::Blocked,
            (_, LinkEvent::Unblocked) => Self::Up,
            (Self::Blocked, LinkEvent::ConfirmLate | LinkEvent::ConfirmsCurrent) => Self::Blocked,
            (_, LinkEvent::ConfirmLate) => Self::Late,
            (_, LinkEvent::ConfirmsCurrent) => Self::Up,
        }
    }
}

/// The state, shared between the publishing task and its callers.
pub(super) struct SharedLinkState(AtomicU8);

impl SharedLinkState {
    /// A link that is not connected yet.
    pub const fn down() -> Self {
        Self(AtomicU8::new(LinkState::Down as u8))
    }

    /// The state now. It may change right after: what was sent meanwhile is answered by its confirm, or its absence.
    pub fn get(&self) -> LinkState {
        match self.0.load(Ordering::Relaxed) {
            1 => LinkState::Up,
            2 => LinkState::Blocked,
            3 => LinkState::Late,
            _ => LinkState::Down,
        }
    }

    /// Moves on to the state after an event and returns it. For the publishing task alone: load and store are two
    /// steps.
    pub fn apply(&self, event: LinkEvent) -> LinkState {
        let next = self.get().next(event);
        self.0.store(next as u8, Ordering::Relaxed);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::{LinkEvent::*, LinkState::*, *};

    #[test]
    fn every_event_in_every_state() {
        let states = [Down, Up, LinkState::Blocked, Late];
        let table = [
            (Connected, [Up, Up, Up, Up]),
            (Disconnected, [Down, Down, Down, Down]),
            (LinkEvent::Blocked, [Down, LinkState::Blocked, LinkState::Blocked, LinkState::Blocked]),
            (Unblocked, [Down, Up, Up, Up]),
            (ConfirmLate, [Down, Late, LinkState::Blocked, Late]),
            (ConfirmsCurrent, [Down, Up, LinkState::Blocked, Up]),
        ];
        for (event, after) in table {
            for (state, after) in states.into_iter().zip(after) {
                assert_eq!(state.next(event), after, "{state:?} after {event:?}");
                let shared = SharedLinkState(AtomicU8::new(state as u8));
                assert_eq!((shared.get(), shared.apply(event), shared.get()), (state, after, after));
            }
        }
    }
}
