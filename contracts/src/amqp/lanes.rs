//! Events waiting to leave, by where they go. What gathers here while confirms are awaited leaves as one array.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{confirms::Waiter, publisher::Target};
use crate::envelope::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, join_batch};

/// One event on its way out, and who waits for its confirm.
pub(super) struct Item {
    pub target: Target,
    pub bytes: Bytes,
    pub waiter: Waiter,
}

/// One message body, and who waits for its confirm.
pub(super) struct Array {
    pub target: Target,
    pub body: Vec<u8>,
    pub waiters: Vec<Waiter>,
}

/// One queue of waiting events a target; targets take turns.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Target, VecDeque<Item>>,
    turns: VecDeque<Target>,
}

impl Lanes {
    pub fn push(&mut self, item: Item) {
        let lane = self.lanes.entry(item.target.clone()).or_default();
        if lane.is_empty() {
            self.turns.push_back(item.target.clone());
        }
        lane.push_back(item);
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// The next array: what waits for one target, up to the limits of one message.
    pub fn pop(&mut self) -> Option<Array> {
        let target = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&target)?;
        // What is no event cannot stand in an array of events, and a suspect is to be tried alone.
        let alone = matches!(target, Target::Undecodable | Target::Quarantine(_));
        let events_max = if alone { 1 } else { BATCH_EVENTS_MAX };
        let mut items: Vec<Item> = Vec::with_capacity(lane.len().min(events_max));
        let mut size = 2;
        while let Some(next) = lane.front() {
            let grown = size + next.bytes.len() + 1;
            if items.len() == events_max || (grown > BATCH_BYTES_MAX && !items.is_empty()) {
                break;
            }
            size = grown;
            items.extend(lane.pop_front());
        }
        if !lane.is_empty() {
            self.turns.push_back(target.clone());
        }
        let body = match items.as_slice() {
            [item] if target == Target::Undecodable => item.bytes.to_vec(),
            items => join_batch(items.iter().map(|item| &item.bytes)),
        };
        Some(Array { target, body, waiters: items.into_iter().map(|item| item.waiter).collect() })
    }

    /// Everything that waits, given back to be refused.
    pub fn drain(&mut self) -> impl Iterator<Item = Waiter> + use<> {
        self.turns.clear();
        std::mem::take(&mut self.lanes).into_values().flatten().map(|item| item.waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Queue, WorkQueue};

    fn item(target: Target, size: usize) -> Item {
        Item { target, bytes: vec![b'1'; size].into(), waiter: Waiter::nobody() }
    }

    const PAYMENTS: WorkQueue = WorkQueue::whole(Queue::Payments);

    #[test]
    fn arrays_keep_to_their_limits_and_targets_take_turns() {
        let mut lanes = Lanes::default();
        let (payments, email) = (Target::Command(PAYMENTS), Target::Command(WorkQueue::whole(Queue::Email)));
        for _ in 0..100 {
            lanes.push(item(payments.clone(), 10));
        }
        for _ in 0..3 {
            lanes.push(item(email.clone(), BATCH_BYTES_MAX / 2));
        }
        let sizes: Vec<_> =
            std::iter::from_fn(|| lanes.pop()).map(|array| (array.target, array.waiters.len())).collect();
        assert_eq!(sizes, [(payments.clone(), 64), (email.clone(), 1), (payments, 36), (email.clone(), 1), (email, 1)]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn an_array_holds_events_of_one_partition() {
        let mut lanes = Lanes::default();
        let target = |number| Target::Command(WorkQueue::partition(Queue::Payments, number));
        for number in [0, 1, 0, 1, 1] {
            lanes.push(item(target(number), 10));
        }
        let arrays: Vec<_> =
            std::iter::from_fn(|| lanes.pop()).map(|array| (array.target, array.waiters.len())).collect();
        assert_eq!(arrays, [(target(0), 2), (target(1), 3)]);
    }
}
