//! The pool `documents`: issued invoices become PDFs, in a program of its own. Only this crate depends on Typst, so the
//! gateway and the other pools are built and running long before it.
//!
//! It is a worker process as `workers run` is one: the same settings, runtime, metrics and health.

pub mod cli;
pub mod invoice_pdf;
pub mod registry;
pub mod render_invoice;

pub use render_invoice::RenderInvoiceHandler;
