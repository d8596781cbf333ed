//! The handlers of the program `workers`: one line a kind, beside the catalog of `contracts`. The program `renderer` has
//! those of the pool `documents`.

use crate::{
    config::WorkerSettings,
    email::SendEmailHandler,
    file_store::FileStore,
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
        .handler(CreateNotificationHandler)
        .effect(SendEmailHandler::new(settings, files)?))
}
