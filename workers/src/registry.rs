//! The handlers of the program `workers`: one line a kind, beside the catalog of `contracts`. The program `renderer` has
//! those of the pool `documents`.

use crate::{
    config::WorkerSettings, email, file_store::FileStore, invoicing, notifications, payments, registrations,
    runtime::Registry,
};

/// Creates every handler from the settings.
///
/// # Errors
/// Settings that a handler cannot work with: a template folder, a file store, a mail server's URL.
pub fn registry(settings: &WorkerSettings) -> anyhow::Result<Registry> {
    let files = FileStore::open(&settings.files)?;
    Ok(Registry::new()
        .handler(registrations::SubmitRegistrationHandler)
        .handler(registrations::ConfirmRegistrationHandler)
        .handler(registrations::ReviewRegistrationHandler)
        .handler(registrations::CancelRegistrationHandler)
        .handler(payments::SubmitPaymentHandler)
        .handler(payments::DecidePaymentHandler)
        .handler(payments::ExpireHoldHandler)
        .handler(invoicing::IssueInvoiceHandler::new(&settings.institute))
        .handler(notifications::CreateNotificationHandler)
        .effect(email::SendEmailHandler::new(settings, files)?))
}
