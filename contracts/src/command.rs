//! A command is one kind of message. Its contract file says everything that both sides must agree on; gateway ingest,
//! topology, metrics, schemas and load test are generic over this trait.

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::problem::FieldError;

/// A work queue, and the pool of the same name that consumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// Seats: register, confirm, review, cancel.
    Registrations,
    /// Money: submit, decide; and the expiry of holds, which must stay behind the payments that beat it.
    Payments,
    /// Gapless invoice numbers.
    Invoicing,
    /// PDFs, rendered away from the pools that people wait for.
    Documents,
    /// Messages shown in the application.
    Notifications,
    /// Mails.
    Email,
}

impl Queue {
    /// Every work queue, in the order of a student's way.
    pub const ALL: [Queue; 6] =
        [Queue::Registrations, Queue::Payments, Queue::Invoicing, Queue::Documents, Queue::Notifications, Queue::Email];

    /// The queue's name at the broker, which is also its routing key and the name of its pool.
    pub const fn name(self) -> &'static str {
        match self {
            Queue::Registrations => "registrations",
            Queue::Payments => "payments",
            Queue::Invoicing => "invoicing",
            Queue::Documents => "documents",
            Queue::Notifications => "notifications",
            Queue::Email => "email",
        }
    }

    /// The queue of this name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|queue| queue.name() == name)
    }
}

/// One kind of message: the shape of its data, where it goes, and what makes it valid.
pub trait Command: Serialize + DeserializeOwned + JsonSchema + Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The CloudEvents `type`, with its version: `payment.submit.v1`. Never reused for another shape.
    const KIND: &'static str;

    /// The queue it travels in.
    const QUEUE: Queue;

    /// What must stay in order among itself: the CloudEvents `subject`, at most 320 bytes. Where the queue is split, all
    /// events of a key go to one partition, so kinds whose order among each other matters must name the same thing.
    fn partition_key(&self) -> String;

    /// How many rows it writes, for sizing batches. At least 1.
    fn weight(&self) -> usize {
        1
    }

    /// Checks every field and reports all that is wrong, so that a form can show it at once.
    ///
    /// # Errors
    /// One entry a bad field, each with its path, a stable code and the fix.
    fn validate(&self) -> Result<(), Vec<FieldError>>;

    /// A valid message, for schemas, documentation, tests and load.
    fn example() -> Self;
}
