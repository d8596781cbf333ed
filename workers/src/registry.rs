//! The handlers of the program `workers`: one line a kind, beside the catalog of `contracts`. The program `renderer` has
//! those of the pool `documents`.

use crate::{
    config::Settings,
    email::SendEmail,
    file_store::FileStore,
    invoicing::IssueInvoice,
    notifications::CreateNotification,
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
        .handler(IssueInvoice::new(&settings.institute))
        .handler(CreateNotification::new())
        .effect(SendEmail::new(settings, files)?))
}
