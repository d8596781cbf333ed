//! `email.send.v1`: one mail to one address. A leaf: `email_logs.dedupe_key` is its inbox.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError, RawJson,
    command::{Command, Queue},
    validation::Checks,
};

/// Sends a mail, once a dedupe key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SendEmail {
    /// The address.
    pub to_email: String,
    /// The name beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_name: Option<String>,
    /// The account, where there is one; its preferences and language hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    /// What to say.
    pub template: EmailTemplate,
    /// BCP 47; falls back to `en`.
    pub locale: String,
    /// What the template fills in.
    #[serde(default)]
    pub context: RawJson,
    /// `user_tokens.id`, where the mail carries a link that signs in, verifies or resets. The secret part is computed
    /// while the mail is rendered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<Uuid>,
    /// A file to attach: `files.id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment_file_id: Option<Uuid>,
    /// Once a key, whatever is delivered how often.
    pub dedupe_key: String,
}

/// Every mail that the platform writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmailTemplate {
    /// The seat is held: what to pay, until when, where to. With the magic link for a visitor.
    SeatHeld,
    /// On the waitlist, with the position. With the magic link for a visitor.
    Waitlisted,
    /// The registration awaits a review. With the magic link for a visitor.
    RegistrationReceived,
    /// The registration was turned down: full, or not admitted.
    RegistrationRejected,
    /// A seat became free for the head of the waitlist.
    SeatOffered,
    /// The hold ends soon.
    HoldExpiresSoon,
    /// The hold has ended.
    HoldExpired,
    /// The registration was cancelled.
    RegistrationCancelled,
    /// The payment is with the accountants.
    PaymentReceived,
    /// The payment was approved; the invoice is attached.
    PaymentApproved,
    /// The payment was rejected: why, and where to submit again.
    PaymentRejected,
    /// The seat is the student's.
    EnrollmentConfirmed,
    /// A link to sign in.
    MagicLink,
    /// A link to set a new password.
    PasswordReset,
    /// Someone signed in from a new place.
    NewSignIn,
    /// To the accountants: a reference was claimed twice.
    DuplicateReference,
}

impl EmailTemplate {
    /// Every template, for the test that renders them all.
    pub const ALL: [EmailTemplate; 16] = [
        EmailTemplate::SeatHeld,
        EmailTemplate::Waitlisted,
        EmailTemplate::RegistrationReceived,
        EmailTemplate::RegistrationRejected,
        EmailTemplate::SeatOffered,
        EmailTemplate::HoldExpiresSoon,
        EmailTemplate::HoldExpired,
        EmailTemplate::RegistrationCancelled,
        EmailTemplate::PaymentReceived,
        EmailTemplate::PaymentApproved,
        EmailTemplate::PaymentRejected,
        EmailTemplate::EnrollmentConfirmed,
        EmailTemplate::MagicLink,
        EmailTemplate::PasswordReset,
        EmailTemplate::NewSignIn,
        EmailTemplate::DuplicateReference,
    ];

    /// The template's file name and its value in `email_logs.template`.
    pub const fn name(self) -> &'static str {
        match self {
            EmailTemplate::SeatHeld => "seat_held",
            EmailTemplate::Waitlisted => "waitlisted",
            EmailTemplate::RegistrationReceived => "registration_received",
            EmailTemplate::RegistrationRejected => "registration_rejected",
            EmailTemplate::SeatOffered => "seat_offered",
            EmailTemplate::HoldExpiresSoon => "hold_expires_soon",
            EmailTemplate::HoldExpired => "hold_expired",
            EmailTemplate::RegistrationCancelled => "registration_cancelled",
            EmailTemplate::PaymentReceived => "payment_received",
            EmailTemplate::PaymentApproved => "payment_approved",
            EmailTemplate::PaymentRejected => "payment_rejected",
            EmailTemplate::EnrollmentConfirmed => "enrollment_confirmed",
            EmailTemplate::MagicLink => "magic_link",
            EmailTemplate::PasswordReset => "password_reset",
            EmailTemplate::NewSignIn => "new_sign_in",
            EmailTemplate::DuplicateReference => "duplicate_reference",
        }
    }
}

impl Command for SendEmail {
    const KIND: &'static str = "email.send.v1";
    const QUEUE: Queue = Queue::Email;

    fn partition_key(&self) -> String {
        self.to_email.clone()
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        let mut checks = Checks::new();
        checks.email("to_email", &self.to_email).line("locale", &self.locale, 35).line(
            "dedupe_key",
            &self.dedupe_key,
            200,
        );
        if let Some(name) = &self.to_name {
            checks.line("to_name", name, 200);
        }
        checks.finish()
    }

    fn example() -> Self {
        Self {
            to_email: "asha.rao@example.org".into(),
            to_name: Some("Asha Rao".into()),
            user_id: Some(example_id(3)),
            template: EmailTemplate::PaymentReceived,
            locale: "en".into(),
            context:
                serde_json::json!({ "amount": "11800.00", "currency": "INR", "transaction_id": "UTR-2026-000123" })
                    .into(),
            token_id: None,
            attachment_file_id: None,
            dedupe_key: format!("payment_received:{}", example_id(4)),
        }
    }
}
