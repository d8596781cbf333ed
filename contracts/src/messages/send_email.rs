//! `email.send.v1`: one mail to one address. Self-deduplicating: `email_logs.dedupe_key` takes the place of a row in
//! `operations`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError, RawJson,
    command::{Command, Queue},
    named_enum::named_enum,
    validation::Checks,
};

/// Sends a mail, once per dedupe key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SendEmail {
    /// The recipient's address.
    pub to_email: String,
    /// The recipient's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_name: Option<String>,
    /// The recipient's account, where there is one; its preferences and language apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    /// The mail's template.
    pub template: EmailTemplate,
    /// Language tag (BCP 47); falls back to `en`.
    pub locale: String,
    /// Values for the template.
    #[serde(default)]
    pub context: RawJson,
    /// `user_tokens.id`, where the mail carries a link that signs in, verifies or resets. The secret part is computed
    /// while the mail is rendered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<Uuid>,
    /// A file to attach: `files.id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment_file_id: Option<Uuid>,
    /// Deduplication key: one mail per key, however often this is delivered.
    pub dedupe_key: String,
}

named_enum! {
    /// Every mail that the platform sends. The name is that of the template's files and the value of
    /// `email_logs.template`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum EmailTemplate {
        /// The seat is held: amount, deadline and account to pay to. With the magic link for a visitor.
        SeatHeld = "seat_held",
        /// A place on the waitlist, with its position. With the magic link for a visitor.
        Waitlisted = "waitlisted",
        /// The registration awaits a review. With the magic link for a visitor.
        RegistrationReceived = "registration_received",
        /// The registration was rejected: full, or not admitted.
        RegistrationRejected = "registration_rejected",
        /// A seat became free for the head of the waitlist.
        SeatOffered = "seat_offered",
        /// The hold ends soon.
        HoldExpiresSoon = "hold_expires_soon",
        /// The hold has ended.
        HoldExpired = "hold_expired",
        /// The registration was cancelled.
        RegistrationCancelled = "registration_cancelled",
        /// The payment awaits a decision of the accountants.
        PaymentReceived = "payment_received",
        /// The payment was approved; the invoice is attached.
        PaymentApproved = "payment_approved",
        /// The payment was rejected: the reason, and how to submit again.
        PaymentRejected = "payment_rejected",
        /// The registration is confirmed and the student enrolled.
        EnrollmentConfirmed = "enrollment_confirmed",
        /// A link to sign in.
        MagicLink = "magic_link",
        /// A link to set a new password.
        PasswordReset = "password_reset",
        /// Someone signed in from a new place.
        NewSignIn = "new_sign_in",
        /// To the accountants: a payment reference was used twice.
        DuplicateReference = "duplicate_reference",
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
