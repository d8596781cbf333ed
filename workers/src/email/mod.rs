//! The pool `email`: mails, one for each dedupe key, with a lease on each while it is sent.

mod email_log;
pub mod mailer;
pub mod send_email;
mod smtp_connections;
pub mod templates;

pub use send_email::SendEmailHandler;
