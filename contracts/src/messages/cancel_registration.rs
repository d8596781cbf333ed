//! `registration.cancel.v1`: a registration is cancelled before its confirmation; a freed seat goes to the head of the
//! waitlist.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError,
    command::{Command, Queue},
    validation::Checks,
};

/// Cancels a registration: the student's own, or any for an admin (the event's principal is the requester).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CancelRegistration {
    /// The registration.
    pub registration_id: Uuid,
    /// The reason; at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Command for CancelRegistration {
    const KIND: &'static str = "registration.cancel.v1";
    const QUEUE: Queue = Queue::Registrations;

    fn partition_key(&self) -> String {
        self.registration_id.to_string()
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        Checks::new().optional_text("reason", self.reason.as_deref(), 500).finish()
    }

    fn example() -> Self {
        Self { registration_id: example_id(2), reason: Some("Moving to another city.".into()) }
    }
}
