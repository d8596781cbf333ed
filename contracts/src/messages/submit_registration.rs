//! `registration.submit.v1`: a student, or a visitor, asks for a seat in a course batch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError,
    command::{Command, Queue},
    validation::{Checks, normalise_email},
};

/// Asks for a seat in a course batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubmitRegistration {
    /// The course batch.
    pub batch_id: Uuid,
    /// The person who wants the seat.
    pub registrant: Registrant,
    /// Answers to the course batch's own questions; at most 50, each at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<std::collections::BTreeMap<String, String>>,
}

/// The person who wants the seat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Registrant {
    /// A signed-in student.
    Student {
        /// `users.id`.
        student_id: Uuid,
    },
    /// A visitor without an account, or not signed in. The account of this address is found or created, never changed.
    Visitor {
        /// The address that the magic link goes to.
        email: String,
        /// Full name, used only for a new account.
        full_name: String,
        /// Phone number, used only for a new account.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phone: Option<String>,
    },
}

impl Command for SubmitRegistration {
    const KIND: &'static str = "registration.submit.v1";
    const QUEUE: Queue = Queue::Registrations;

    fn partition_key(&self) -> String {
        match &self.registrant {
            Registrant::Student { student_id } => student_id.to_string(),
            Registrant::Visitor { email, .. } => normalise_email(email),
        }
    }

    fn weight(&self) -> usize {
        2
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        let mut checks = Checks::new();
        if let Registrant::Visitor { email, full_name, phone } = &self.registrant {
            checks.email("email", email).line("full_name", full_name, 200);
            if let Some(phone) = phone {
                let ok = (5..=20).contains(&phone.len())
                    && phone.bytes().all(|b| b.is_ascii_digit() || b"+-() ".contains(&b));
                checks.ensure(ok, "phone", "not_a_phone_number", "must have 5 to 20 digits, spaces, +, - or brackets");
            }
        }
        if let Some(answers) = &self.answers {
            checks.ensure(answers.len() <= 50, "answers", "too_many", "must have at most 50 entries");
            for (question, answer) in answers {
                checks.text(&format!("answers.{question}"), answer, 2_000);
                checks.line("answers", question, 100);
            }
        }
        checks.finish()
    }

    fn example() -> Self {
        Self {
            batch_id: example_id(1),
            registrant: Registrant::Visitor {
                email: "asha.rao@example.org".into(),
                full_name: "Asha Rao".into(),
                phone: Some("+91 98450 12345".into()),
            },
            answers: Some([("Highest degree".to_owned(), "B.Sc.".to_owned())].into()),
        }
    }
}
