//! What became of one event in this process: the small vocabulary between settling and finishing.

use bytes::Bytes;
use contracts::{
    Partitions, Principal,
    amqp::{LiveMessage, LiveOperation, Target},
    envelope::NewEvent,
    messages::create_notification::NotificationTarget,
};

use super::{
    failure::{Failure, chain},
    raw_event::RawEvent,
};

/// What became of one event.
#[derive(Debug)]
pub enum Disposition {
    /// Settled now.
    Settled {
        /// `succeeded` or `rejected`.
        state: &'static str,
        follow_ups: Vec<NewEvent>,
        /// Who has something new in the inbox of it.
        notified: Option<NotificationTarget>,
    },
    /// Settled before; its follow-ups go out again, in case they did not the first time.
    Duplicate { follow_ups: Vec<NewEvent> },
    /// Somebody else is at it: look again soon. No failure, so it neither counts nor climbs the ladder.
    Later,
    /// Later, through the ladder.
    Retry { class: &'static str, text: String },
    /// Never: to the dead letters.
    Poison { class: &'static str, text: String },
}

impl Disposition {
    /// The fate of an event that failed alone.
    pub fn of_failure(failure: &Failure) -> Self {
        let (class, text) = (failure.class(), chain(failure));
        match failure {
            Failure::Poison(_) => Disposition::Poison { class, text },
            _ => Disposition::Retry { class, text },
        }
    }

    /// For metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Disposition::Settled { state, .. } => state,
            Disposition::Duplicate { .. } => "duplicate",
            Disposition::Later => "later",
            Disposition::Retry { .. } => "retry",
            Disposition::Poison { .. } => "poison",
        }
    }
}

/// What one batch owes the broker before it may be acked.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Follow-ups and forwards.
    pub publish: Vec<(Target, Bytes)>,
    /// What was settled just now, and who was told something.
    pub live: LiveMessage,
}

impl Outbound {
    /// Adds what follows from one event's fate.
    pub fn add(&mut self, event: &RawEvent, fate: Disposition, attempts_max: u16, partitions: Partitions) {
        match fate {
            Disposition::Settled { state, follow_ups, notified } => {
                self.announce(event, state);
                match notified {
                    Some(NotificationTarget::User(user)) => self.live.notified.push(user),
                    Some(NotificationTarget::Role(role)) => self.live.notified_roles.push(role),
                    None => {}
                }
                self.follow(follow_ups, partitions);
            }
            Disposition::Duplicate { follow_ups } => {
                // Whoever settled it may have died before telling, and whoever sent it again may wait for it.
                self.announce(event, "duplicate");
                self.follow(follow_ups, partitions);
            }
            Disposition::Later => match event.place(partitions) {
                Some(queue) => self.publish.push((Target::retry(queue, 0), event.bytes.clone())),
                None => self.publish.push((Target::Dead, event.bytes.clone())),
            },
            Disposition::Retry { class, text } => {
                let bytes = event.after_failure(class, &text);
                let target = match event.place(partitions) {
                    Some(queue) if event.attempt + 1 < attempts_max => Target::retry(queue, event.attempt),
                    _ => Target::Dead,
                };
                tracing::warn!(event = %event.id, kind = %event.kind, class, text, ?target, "put off");
                self.publish.push((target, bytes));
            }
            Disposition::Poison { class, text } => {
                tracing::warn!(event = %event.id, kind = %event.kind, class, text, "parked");
                self.publish.push((Target::Dead, event.after_failure(class, &text)));
            }
        }
    }

    fn announce(&mut self, event: &RawEvent, state: &str) {
        if !matches!(event.principal, Principal::System) {
            let user = event.principal.user_id();
            self.live.operations.push(LiveOperation { id: event.id, state: state.to_owned(), user });
        }
    }

    fn follow(&mut self, follow_ups: Vec<NewEvent>, partitions: Partitions) {
        self.publish
            .extend(follow_ups.into_iter().map(|event| (Target::Command(event.place(partitions)), event.bytes)));
    }
}
