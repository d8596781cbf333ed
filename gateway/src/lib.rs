//! The HTTP edge: authenticates, validates, turns requests into durable messages, and tells what became of them.
//!
//! Invariants: no 202 before the broker's confirm ([`ingest`]); nothing but [`config`] reads the environment; money, seats
//! and results are never written here.

pub mod auth;
pub mod catalogue;
pub mod catalogue_reads;
pub mod config;
pub mod enrollments;
pub mod events;
pub mod gateway;
pub mod health;
pub mod idempotency;
pub mod ingest;
pub mod invoices;
pub mod json_body;
pub mod live;
pub mod mailed_link;
pub mod me;
pub mod metrics;
pub mod middleware;
pub mod notifications;
pub mod openapi;
pub mod operations;
pub mod pace;
pub mod page;
pub mod payments;
pub mod problem_response;
pub mod problems;
pub mod query;
pub mod registrant;
pub mod registrations;
pub mod request;
pub mod router;
pub mod server;
pub mod state;
pub mod telemetry;

pub use router::api;
