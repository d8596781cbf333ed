//! The pool `notifications`: what users are told in the application.

pub mod create_notification;

pub use create_notification::CreateNotificationHandler;
