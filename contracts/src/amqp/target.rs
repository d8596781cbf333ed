//! Where an event is published to, and the exchange, routing key and headers that lead there.

use lapin::types::{AMQPValue, FieldTable};

use super::topology::{self, Rung};
use crate::{Queue, WorkQueue};

/// The destination of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Its work queue.
    Command(WorkQueue),
    /// Its work queue, after the delay of the named rung of the retry ladder.
    Retry(WorkQueue, &'static str),
    /// The quarantine of its pool, where each event is tried singly.
    Quarantine(Queue),
    /// The dead letters.
    Dead,
    /// The dead letters, byte for byte as delivered: a body that is no array of events.
    Undecodable,
}

impl Target {
    /// The target of the n-th retry (from 0) of an event of this queue.
    pub fn retry(queue: WorkQueue, attempt: u16) -> Self {
        Target::Retry(queue, Rung::for_attempt(attempt).name)
    }

    /// Exchange, routing key and headers.
    pub(super) fn address(&self) -> (&'static str, String, FieldTable) {
        let mut headers = FieldTable::default();
        match self {
            Target::Command(queue) => (topology::COMMANDS, queue.to_string(), headers),
            Target::Retry(queue, rung) => {
                headers.insert(topology::DELAY_HEADER.into(), AMQPValue::LongString((*rung).into()));
                (topology::RETRY, queue.to_string(), headers)
            }
            Target::Quarantine(queue) => (topology::DEAD, topology::quarantine(*queue), headers),
            Target::Dead | Target::Undecodable => (topology::DEAD, topology::DEAD.to_owned(), headers),
        }
    }
}
