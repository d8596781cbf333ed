//! Events that wait to be sent, by target. What accumulates while confirms are awaited is sent as one array.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{confirms::PendingConfirm, target::Target};
use crate::envelope::{MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX, join_events};

/// One event to be sent, and its caller.
pub(super) struct OutgoingEvent {
    pub target: Target,
    pub bytes: Bytes,
    pub caller: PendingConfirm,
}

/// One message to be sent, and the callers of its events.
pub(super) struct OutgoingMessage {
    pub target: Target,
    pub body: Vec<u8>,
    pub callers: Vec<PendingConfirm>,
}

/// One queue of events per target; targets take turns.
#[derive(Default)]
pub(super) struct OutgoingQueues {
    queues: HashMap<Target, VecDeque<OutgoingEvent>>,
    /// Targets with events, the next one first.
    turns: VecDeque<Target>,
}

impl OutgoingQueues {
    pub fn push(&mut self, event: OutgoingEvent) {
        let queue = self.queues.entry(event.target.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(event.target.clone());
        }
        queue.push_back(event);
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Takes the next message: the events of one target, up to the limits of one message.
    pub fn pop(&mut self) -> Option<OutgoingMessage> {
        let target = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&target)?;
        // A body that is no event cannot stand in an array of events, and quarantined events are tried singly.
        let single = matches!(target, Target::Undecodable | Target::Quarantine(_));
        let events_max = if single { 1 } else { MESSAGE_EVENTS_MAX };
        let mut events: Vec<OutgoingEvent> = Vec::with_capacity(queue.len().min(events_max));
        let mut size = 2;
        while let Some(next) = queue.front() {
            let grown = size + next.bytes.len() + 1;
            if events.len() == events_max || (grown > MESSAGE_BYTES_MAX && !events.is_empty()) {
                break;
            }
            size = grown;
            events.extend(queue.pop_front());
        }
        if !queue.is_empty() {
            self.turns.push_back(target.clone());
        }
        let body = match events.as_slice() {
            [event] if target == Target::Undecodable => event.bytes.to_vec(),
            events => join_events(events.iter().map(|event| &event.bytes)),
        };
        Some(OutgoingMessage { target, body, callers: events.into_iter().map(|event| event.caller).collect() })
    }

    /// Removes everything and returns its callers.
    pub fn drain(&mut self) -> impl Iterator<Item = PendingConfirm> + use<> {
        self.turns.clear();
        std::mem::take(&mut self.queues).into_values().flatten().map(|event| event.caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Queue, WorkQueue};

    const PAYMENTS: WorkQueue = WorkQueue::whole(Queue::Payments);

    fn event(target: Target, size: usize) -> OutgoingEvent {
        OutgoingEvent { target, bytes: vec![b'1'; size].into(), caller: PendingConfirm::without_caller() }
    }

    fn popped(outgoing: &mut OutgoingQueues) -> Vec<(Target, usize)> {
        std::iter::from_fn(|| outgoing.pop()).map(|message| (message.target, message.callers.len())).collect()
    }

    #[test]
    fn arrays_keep_to_their_limits_and_targets_take_turns() {
        let mut outgoing = OutgoingQueues::default();
        let (payments, email) = (Target::Command(PAYMENTS), Target::Command(WorkQueue::whole(Queue::Email)));
        for _ in 0..100 {
            outgoing.push(event(payments.clone(), 10));
        }
        for _ in 0..3 {
            outgoing.push(event(email.clone(), MESSAGE_BYTES_MAX / 2));
        }
        let expected = [(payments.clone(), 64), (email.clone(), 1), (payments, 36), (email.clone(), 1), (email, 1)];
        assert_eq!(popped(&mut outgoing), expected);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn an_array_holds_events_of_one_partition() {
        let mut outgoing = OutgoingQueues::default();
        let target = |number| Target::Command(WorkQueue::partition(Queue::Payments, number));
        for number in [0, 1, 0, 1, 1] {
            outgoing.push(event(target(number), 10));
        }
        assert_eq!(popped(&mut outgoing), [(target(0), 2), (target(1), 3)]);
    }
}
