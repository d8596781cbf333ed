//! Every message, one file each. A new kind is a file here, a line here, and a line in [`crate::catalog`].

pub mod cancel_registration;
pub mod confirm_registration;
pub mod create_notification;
pub mod decide_payment;
pub mod expire_hold;
pub mod issue_invoice;
pub mod render_invoice;
pub mod review_registration;
pub mod send_email;
pub mod submit_payment;
pub mod submit_registration;

pub use cancel_registration::CancelRegistration;
pub use confirm_registration::ConfirmRegistration;
pub use create_notification::CreateNotification;
pub use decide_payment::{DecidePayment, PaymentDecision};
pub use expire_hold::ExpireHold;
pub use issue_invoice::IssueInvoice;
pub use render_invoice::RenderInvoice;
pub use review_registration::{RegistrationDecision, ReviewRegistration};
pub use send_email::{EmailTemplate, SendEmail};
pub use submit_payment::{PaymentMethod, SubmitPayment};
pub use submit_registration::{Registrant, SubmitRegistration};

/// A fixed id for examples: the same in every schema, document and test.
const fn example_id(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 | n)
}

/// A fixed time for examples.
fn example_time() -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp(1_767_225_600, 0).expect("2026-01-01T00:00:00Z is in range")
}
