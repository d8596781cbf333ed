//! The handlers of the pool `documents`; those of the other pools are in `workers::registry`.

use workers::{config::WorkerSettings, file_store::FileStore, runtime::Registry};

use crate::RenderInvoiceHandler;

/// Makes the handlers from the settings.
///
/// # Errors
/// Settings that a handler cannot work with: a template folder, a file store.
pub fn registry(settings: &WorkerSettings) -> anyhow::Result<Registry> {
    let files = FileStore::open(&settings.files)?;
    Ok(Registry::new().effect(RenderInvoiceHandler::new(&settings.institute, files)?))
}
