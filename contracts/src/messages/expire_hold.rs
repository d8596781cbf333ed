//! `registration.expire_hold.v1`: the clock frees a seat whose hold has ended. It is queued in `payments`, behind every
//! payment that was accepted before the hold's end; where that queue is split, in the partition of the same student.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{example_id, example_time};
use crate::{
    FieldError,
    command::{Command, Queue},
};

/// Expires one hold, unless it was renewed, paid or cancelled since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExpireHold {
    /// The registration.
    pub registration_id: Uuid,
    /// The end of the hold to expire; a hold that was renewed has another end and is kept.
    pub hold_expires_at: DateTime<Utc>,
    /// The student who holds the seat. Absent only in events from before queues could be split, which are in the whole
    /// queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student_id: Option<Uuid>,
}

impl Command for ExpireHold {
    const KIND: &'static str = "registration.expire_hold.v1";
    const QUEUE: Queue = Queue::Payments;

    /// The student: the same key as that of the payments that it must not overtake.
    fn partition_key(&self) -> String {
        self.student_id.unwrap_or(self.registration_id).to_string()
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    fn example() -> Self {
        Self { registration_id: example_id(2), hold_expires_at: example_time(), student_id: Some(example_id(3)) }
    }
}
