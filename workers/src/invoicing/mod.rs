//! The pool `invoicing`: invoices of approved payments, numbered without a gap.

pub mod financial_year;
pub mod issue_invoice;
pub mod issued_invoice;
pub mod money;
mod payment_to_invoice;

pub use issue_invoice::IssueInvoiceHandler;
