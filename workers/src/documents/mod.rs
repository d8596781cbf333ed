//! The pool `documents`: issued invoices become PDFs, away from the pools that people wait for.

pub mod file_store;
pub mod invoice_pdf;
pub mod render_invoice;

pub use file_store::FileStore;
pub use render_invoice::RenderInvoice;
