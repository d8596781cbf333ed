//! The catalog: every kind of message, without its type, for whatever is generic over kinds. A test in `workers` asserts
//! that every kind here has a handler.

use schemars::Schema;
use serde_json::Value;

use crate::{
    Command, Queue,
    messages::{
        CancelRegistration, ConfirmRegistration, CreateNotification, DecidePayment, ExpireHold, IssueInvoice,
        RenderInvoice, ReviewRegistration, SendEmail, SubmitPayment, SubmitRegistration,
    },
};

/// Every kind of message.
pub const CATALOG: &[Kind] = &[
    Kind::of::<SubmitRegistration>("Ask for a seat in a batch."),
    Kind::of::<ConfirmRegistration>("The mailed link was opened: the provisional hold becomes a real one."),
    Kind::of::<ReviewRegistration>("Let an applicant in, or not."),
    Kind::of::<CancelRegistration>("Give a registration up."),
    Kind::of::<SubmitPayment>("Report a payment."),
    Kind::of::<DecidePayment>("Approve or reject a payment."),
    Kind::of::<ExpireHold>("Give up a seat that was held long enough."),
    Kind::of::<IssueInvoice>("Number and issue the invoice of an approved payment."),
    Kind::of::<RenderInvoice>("Render an issued invoice as a PDF."),
    Kind::of::<CreateNotification>("Tell a user something in the application."),
    Kind::of::<SendEmail>("Send a mail."),
];

/// One kind of message.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The CloudEvents `type`.
    pub name: &'static str,
    /// Its queue.
    pub queue: Queue,
    /// What it asks for, in a sentence.
    pub summary: &'static str,
    /// JSON Schema (draft 2020-12) of its data.
    pub schema: fn() -> Schema,
    /// A valid example of its data.
    pub example: fn() -> Value,
    /// Reads and validates data of this kind.
    pub check: fn(&[u8]) -> Result<(), String>,
}

impl Kind {
    const fn of<C: Command>(summary: &'static str) -> Self {
        Self {
            name: C::KIND,
            queue: C::QUEUE,
            summary,
            schema: || schemars::schema_for!(C),
            example: || serde_json::to_value(C::example()).expect("examples serialise"),
            check: |data| {
                let command: C = serde_json::from_slice(data).map_err(|error| error.to_string())?;
                command.validate().map_err(|errors| {
                    let fields: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
                    fields.join("; ")
                })
            },
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<&'static Kind> {
        CATALOG.iter().find(|kind| kind.name == name)
    }
}
