//! Every message, one file each, and the registry of their kinds. A new kind is a file here and a line in the registry.
//!
//! `cargo fmt` does not follow modules that a macro declares; `make check` formats these files by name.

use crate::kind::Kind;

/// Takes one line a kind, `file::Message "summary";`, and declares the module, re-exports its public types and adds the
/// kind to [`CATALOG`].
macro_rules! registry {
    ($($file:ident :: $message:ident $summary:literal;)*) => {
        $(
            pub mod $file;
            pub use $file::*;
        )*

        /// Every kind of message, in the order of the registry.
        pub const CATALOG: &[Kind] = &[$(Kind::of::<$message>($summary)),*];
    };
}

registry! {
    submit_registration::SubmitRegistration "Ask for a seat in a course batch.";
    confirm_registration::ConfirmRegistration "The mailed link was opened: the provisional hold becomes a real one.";
    review_registration::ReviewRegistration "Admit an applicant, or not.";
    cancel_registration::CancelRegistration "Give a registration up.";
    submit_payment::SubmitPayment "Report a payment.";
    decide_payment::DecidePayment "Approve or reject a payment.";
    expire_hold::ExpireHold "Free a seat whose hold has ended.";
    issue_invoice::IssueInvoice "Number and issue the invoice of an approved payment.";
    render_invoice::RenderInvoice "Render an issued invoice as a PDF.";
    create_notification::CreateNotification "Notify a user in the application.";
    send_email::SendEmail "Send a mail.";
}

/// A fixed id for examples: the same in every schema, document and test.
const fn example_id(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 | n)
}

/// A fixed time for examples.
fn example_time() -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp(1_767_225_600, 0).expect("2026-01-01T00:00:00Z is in range")
}
