//! `registration.confirm.v1`: the visitor opened the mailed link, so the provisional hold becomes a real one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError,
    command::{Command, Queue},
};

/// Confirms a visitor's registration by the mailed link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmRegistration {
    /// The registration that the link was mailed for.
    pub registration_id: Uuid,
    /// The student whose mailbox the link was sent to.
    pub student_id: Uuid,
}

impl Command for ConfirmRegistration {
    const KIND: &'static str = "registration.confirm.v1";
    const QUEUE: Queue = Queue::Registrations;

    fn partition_key(&self) -> String {
        self.student_id.to_string()
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    fn example() -> Self {
        Self { registration_id: example_id(2), student_id: example_id(3) }
    }
}
