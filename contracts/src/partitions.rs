//! A queue split by partition key: a queue that outgrows one leader becomes `payments.0` to `payments.<n-1>`, each with
//! one active consumer. An event's partition is a hash of its CloudEvents `subject` modulo n, so all events of a key
//! are in one queue, in the order of publishing. A deferred event (retry ladder, quarantine, replay) necessarily leaves
//! that order, and still returns to its own partition.
//!
//! Invariant: [`KeyHash`] is the same in every version and on every machine; gateways and workers of two versions share
//! queues.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::Queue;

/// The number of partitions of each queue: the section `partitions` of both programs' settings. Only `payments` can be
/// split: its kinds' `partition_key()` keeps together the events whose order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Partitions {
    /// Partitions of `payments`, at most [`Partitions::MAX`]; 0 and 1: one queue, `payments`.
    #[serde(deserialize_with = "bounded")]
    payments: u16,
}

impl Default for Partitions {
    fn default() -> Self {
        Self { payments: 1 }
    }
}

impl Partitions {
    /// Most partitions of one queue: each is a Raft group of the broker, and a connection of every worker process.
    pub const MAX: u16 = 32;

    /// `payments` in this many partitions; `None` above [`Self::MAX`].
    pub fn of_payments(payments: u16) -> Option<Self> {
        (payments <= Self::MAX).then_some(Self { payments: payments.max(1) })
    }

    /// Returns true if this queue can be split at all.
    pub const fn may_split(queue: Queue) -> bool {
        matches!(queue, Queue::Payments)
    }

    /// The number of partitions of the queue; 1 where it is whole.
    pub const fn count(self, queue: Queue) -> u16 {
        if Self::may_split(queue) { self.payments } else { 1 }
    }

    /// Returns true if the queue is split.
    pub const fn splits(self, queue: Queue) -> bool {
        self.count(queue) > 1
    }

    /// The work queues of a queue: the whole queue, or each partition.
    pub fn queues(self, queue: Queue) -> Vec<WorkQueue> {
        match self.count(queue) {
            1 => vec![WorkQueue::whole(queue)],
            count => (0..count).map(|number| WorkQueue::partition(queue, number)).collect(),
        }
    }

    /// The work queue of a key.
    pub fn work_queue(self, queue: Queue, key: KeyHash) -> WorkQueue {
        match self.count(queue) {
            1 => WorkQueue::whole(queue),
            count => WorkQueue::partition(queue, key.modulo(count)),
        }
    }
}

fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let payments = u16::deserialize(deserializer)?;
    Partitions::of_payments(payments).map(|partitions| partitions.payments).ok_or_else(|| {
        de::Error::custom(format!("{payments} partitions are too many; at most {} are sensible", Partitions::MAX))
    })
}

/// A queue at the broker in which a pool's events wait: a whole queue, or one partition of it. `Display` gives its
/// name, which is also its routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkQueue {
    queue: Queue,
    partition: Option<u16>,
}

impl WorkQueue {
    /// A whole queue, such as `payments`.
    pub const fn whole(queue: Queue) -> Self {
        Self { queue, partition: None }
    }

    /// A partition, such as `payments.3`.
    pub const fn partition(queue: Queue, number: u16) -> Self {
        Self { queue, partition: Some(number) }
    }

    /// The queue that it is, or is a partition of.
    pub const fn queue(self) -> Queue {
        self.queue
    }

    /// Returns true for a partition.
    pub const fn is_partition(self) -> bool {
        self.partition.is_some()
    }

    /// Parses `payments` or `payments.3`; `None` where it is no work queue, or a partition of one that cannot be split.
    pub fn from_name(name: &str) -> Option<Self> {
        let Some((queue, number)) = name.split_once('.') else {
            return Queue::from_name(name).map(Self::whole);
        };
        let queue = Queue::from_name(queue).filter(|queue| Partitions::may_split(*queue))?;
        let partition = Self::partition(queue, number.parse().ok()?);
        (partition.to_string() == name).then_some(partition)
    }
}

impl fmt::Display for WorkQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            None => f.write_str(self.queue.name()),
            Some(number) => write!(f, "{}.{number}", self.queue.name()),
        }
    }
}

/// FNV-1a, 64 bits, of a partition key's UTF-8 bytes (<http://www.isthe.com/chongo/tech/comp/fnv/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// Hashes a key.
    pub fn of(key: &str) -> Self {
        let hash = key
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(hash)
    }

    fn modulo(self, count: u16) -> u16 {
        // The low bits of FNV depend on the low bits of the key alone: the high ones are folded in.
        let folded = self.0 ^ (self.0 >> 32);
        u16::try_from(folded % u64::from(count)).expect("it is below a u16")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Command,
        messages::{ExpireHold, SubmitPayment},
    };

    #[test]
    fn the_hash_is_the_published_one_for_ever() {
        for (key, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(KeyHash::of(key), KeyHash(hash), "{key}");
        }
    }

    #[test]
    fn a_key_keeps_its_partition_for_ever() {
        let keys = [
            "",
            "asha.rao@example.org",
            "01990000-0000-7000-8000-000000000003",
            "01990000-0000-7000-8000-000000000004",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ];
        let queues = |count| {
            let partitions = Partitions::of_payments(count).expect("not too many");
            keys.map(|key| partitions.work_queue(Queue::Payments, KeyHash::of(key)).to_string())
        };
        assert_eq!(queues(1), ["payments"; 5]);
        assert_eq!(queues(4), ["payments.1", "payments.3", "payments.3", "payments.2", "payments.3"]);
        assert_eq!(queues(7), ["payments.6", "payments.0", "payments.0", "payments.6", "payments.6"]);
    }

    #[test]
    fn partitions_are_filled_evenly() {
        let partitions = Partitions::of_payments(4).expect("not too many");
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..4_000_u128 {
            let student = uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 | number).to_string();
            *counts.entry(partitions.work_queue(Queue::Payments, KeyHash::of(&student))).or_insert(0) += 1;
        }
        assert!(counts.len() == 4 && counts.values().all(|count| (900..=1_100).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_end_of_a_hold_is_queued_behind_the_payments_of_its_student() {
        let (payment, end) = (SubmitPayment::example(), ExpireHold::example());
        assert_eq!(end.partition_key(), payment.partition_key());
    }

    #[test]
    fn names_are_parsed_as_they_are_displayed() {
        for name in ["payments", "payments.0", "payments.31", "email"] {
            assert_eq!(WorkQueue::from_name(name).map(|queue| queue.to_string()).as_deref(), Some(name));
        }
        for name in ["payment", "payments.", "payments.x", "payments.01", "payments.0.1", "email.0", "payments.-1"] {
            assert_eq!(WorkQueue::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn an_invalid_setting_is_refused_by_name() {
        let read = |json: &str| serde_json::from_str::<Partitions>(json).map_err(|error| error.to_string());
        assert_eq!(read("{}"), Ok(Partitions::default()));
        assert_eq!(read(r#"{"payments":0}"#), Ok(Partitions::default()));
        assert_eq!(read(r#"{"payments":4}"#), Ok(Partitions { payments: 4 }));
        assert!(read(r#"{"payments":33}"#).expect_err("above the bound").contains("at most 32"));
        assert!(read(r#"{"email":4}"#).expect_err("cannot be split").contains("email"));
    }
}
