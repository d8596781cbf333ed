//! The pool `email`: mails, once a dedupe key, with a lease on each while it goes out.

mod email_log;
pub mod mailer;
pub mod send_email;
mod smtp_connections;
pub mod templates;

pub use send_email::SendEmailHandler;
