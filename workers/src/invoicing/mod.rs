//! The pool `invoicing`: approved payments get invoices, numbered without a gap.

pub mod issue_invoice;
pub mod money;
pub mod number;
mod paid;

pub use issue_invoice::IssueInvoiceHandler;
