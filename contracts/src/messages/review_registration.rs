//! `registration.review.v1`: an admin admits an applicant, or not, where the course batch requires a review.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError,
    command::{Command, Queue},
    validation::Checks,
};

/// Reviews a registration that is `under_review`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewRegistration {
    /// The registration.
    pub registration_id: Uuid,
    /// The decision.
    pub decision: RegistrationDecision,
}

/// An admin's decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum RegistrationDecision {
    /// Admitted: gets a seat or a waitlist position, as if registered now.
    Approve,
    /// Not admitted.
    Reject {
        /// The reason, shown to the applicant; at most 500 characters.
        reason: String,
    },
}

impl Command for ReviewRegistration {
    const KIND: &'static str = "registration.review.v1";
    const QUEUE: Queue = Queue::Registrations;

    fn partition_key(&self) -> String {
        self.registration_id.to_string()
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        match &self.decision {
            RegistrationDecision::Approve => Ok(()),
            RegistrationDecision::Reject { reason } => Checks::new().text("reason", reason, 500).finish(),
        }
    }

    fn example() -> Self {
        Self { registration_id: example_id(2), decision: RegistrationDecision::Approve }
    }
}
