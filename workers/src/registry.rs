//! The handler of each kind of message, a line each; the catalog of `contracts` has the same kinds, as a test asserts.

use crate::{
    config::WorkerSettings,
    documents::{FileStore, RenderInvoice},
    email::SendEmailHandler,
    invoicing::IssueInvoiceHandler,
    notifications::CreateNotificationHandler,
    payments::{DecidePaymentHandler, ExpireHoldHandler, SubmitPaymentHandler},
    registrations::{
        CancelRegistrationHandler, ConfirmRegistrationHandler, ReviewRegistrationHandler, SubmitRegistrationHandler,
    },
    runtime::Registry,
};

/// Creates every handler from the settings.
///
/// # Errors
/// Settings that a handler cannot work with: a template folder, a file store, a mail server's URL.
pub fn registry(settings: &WorkerSettings) -> anyhow::Result<Registry> {
    let files = FileStore::open(&settings.files)?;
    Ok(Registry::new()
        .handler(SubmitRegistrationHandler)
        .handler(ConfirmRegistrationHandler)
        .handler(ReviewRegistrationHandler)
        .handler(CancelRegistrationHandler)
        .handler(SubmitPaymentHandler)
        .handler(DecidePaymentHandler)
        .handler(ExpireHoldHandler)
        .handler(IssueInvoiceHandler::new(&settings.institute))
        .effect(RenderInvoice::new(&settings.institute, files.clone())?)
        .handler(CreateNotificationHandler)
        .effect(SendEmailHandler::new(settings, files)?))
}
