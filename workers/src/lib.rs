//! The worker pools, the clock and the ops command line, as a library so that tests can run them in process.
//!
//! `runtime` owns the life of a message; each pool has a folder with one file for each command. README.md has the rest.

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod email;
pub mod fault_injection;
pub mod file_store;
pub mod invoicing;
pub mod notifications;
pub mod payments;
pub mod process;
pub mod registrations;
pub mod registry;
pub mod runtime;
pub mod telemetry;
