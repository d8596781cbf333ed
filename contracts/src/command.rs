//! A command is one kind of message. Its file in `messages/` holds everything that both sides must agree on; gateway
//! ingest, topology, metrics, schemas and load test are generic over this trait.

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{named_enum::named_enum, problem::FieldError};

named_enum! {
    /// A work queue, and the pool of the same name that consumes it. The name is the queue's at the broker, its routing
    /// key and the pool's; the order is that of a student's progress.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Queue {
        /// Seats: register, confirm, review, cancel.
        Registrations = "registrations",
        /// Money: submit, decide; and the expiry of holds, which must stay behind the payments that arrived before it.
        Payments = "payments",
        /// Gapless invoice numbers.
        Invoicing = "invoicing",
        /// PDFs, rendered apart from the pools whose results people wait for.
        Documents = "documents",
        /// Messages shown in the application.
        Notifications = "notifications",
        /// Mails.
        Email = "email",
    }
}

/// One kind of message: the shape of its data, its queue and its validation.
pub trait Command: Serialize + DeserializeOwned + JsonSchema + Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The CloudEvents `type`, with its version: `payment.submit.v1`. Never reused for another shape.
    const KIND: &'static str;

    /// The queue it travels in.
    const QUEUE: Queue;

    /// The key within which events stay in order: the CloudEvents `subject`, at most 320 bytes. Where the queue is
    /// split, all events of a key go to one partition, so kinds whose order relative to each other matters must use the
    /// same key.
    fn partition_key(&self) -> String;

    /// The number of rows that it writes, for sizing what is settled together. At least 1.
    fn weight(&self) -> usize {
        1
    }

    /// Checks every field and reports all errors, so that a form can show them at once.
    ///
    /// # Errors
    /// One entry per invalid field, with its path, a stable code and the fix.
    fn validate(&self) -> Result<(), Vec<FieldError>>;

    /// A valid message, for schemas, documentation, tests and load.
    fn example() -> Self;
}
