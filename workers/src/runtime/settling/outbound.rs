//! Messages that have to be published before deliveries may be acked: follow-ups, retries, dead letters, live updates.

use bytes::Bytes;
use contracts::{
    Partitions, Principal,
    amqp::{LiveMessage, LiveOperation, Target},
    envelope::NewEvent,
    messages::create_notification::NotificationTarget,
};

use super::{disposition::Disposition, raw_event::RawEvent};

/// The messages that come of deliveries settled together.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Follow-ups and forwards, which have to be confirmed before the ack.
    pub publish: Vec<(Target, Bytes)>,
    /// Operations that were settled just now, and users and roles that have a new notification.
    pub live: LiveMessage,
}

impl Outbound {
    /// Adds what the disposition of one event asks for.
    pub fn add(&mut self, event: &RawEvent, disposition: Disposition, attempts_max: u16, partitions: Partitions) {
        match disposition {
            Disposition::Settled { state, follow_ups, notified } => {
                self.announce(event, state);
                match notified {
                    Some(NotificationTarget::User(user)) => self.live.notified.push(user),
                    Some(NotificationTarget::Role(role)) => self.live.notified_roles.push(role),
                    None => {}
                }
                self.publish_follow_ups(follow_ups, partitions);
            }
            Disposition::Duplicate { follow_ups } => {
                // The worker that settled it may have died before the live update, and the client that sent it again
                // may wait for it.
                self.announce(event, "duplicate");
                self.publish_follow_ups(follow_ups, partitions);
            }
            Disposition::Later => match event.work_queue(partitions) {
                Some(queue) => self.publish.push((Target::retry(queue, 0), event.bytes.clone())),
                None => self.publish.push((Target::Dead, event.bytes.clone())),
            },
            Disposition::Retry { class, text } => {
                let bytes = event.after_failure(class, &text);
                let target = match event.work_queue(partitions) {
                    Some(queue) if event.attempt + 1 < attempts_max => Target::retry(queue, event.attempt),
                    _ => Target::Dead,
                };
                tracing::warn!(event = %event.id, kind = %event.kind, class, text, ?target, "to be retried later");
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

    fn publish_follow_ups(&mut self, follow_ups: Vec<NewEvent>, partitions: Partitions) {
        self.publish
            .extend(follow_ups.into_iter().map(|event| (Target::Command(event.work_queue(partitions)), event.bytes)));
    }
}
