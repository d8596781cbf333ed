//! The worker pools, the clock and the ops command line, as a library so that tests can run them in process.
//!
//! `runtime` owns the way of a message; each other folder is a pool and holds one file a command.

pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod email;
pub mod file_store;
pub mod invoicing;
pub mod notifications;
pub mod payments;
pub mod process;
pub mod registrations;
pub mod registry;
pub mod runtime;
pub mod telemetry;
