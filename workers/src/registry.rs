//! Which handler settles which kind: one line a kind, beside the catalog of `contracts`.

use crate::{
    config::Settings,
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

/// Every handler, made from the settings.
///
/// # Errors
/// Settings that a handler cannot work with: a template folder, a file store, a mail server's URL.
pub fn registry(settings: &Settings) -> anyhow::Result<Registry> {
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
