//! The pool `notifications`: notifications in the application.

pub mod create_notification;

pub use create_notification::CreateNotificationHandler;
