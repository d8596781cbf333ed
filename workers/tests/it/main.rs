//! Tests on real services: every test has a database and a vhost of its own.

mod catalog;
mod duplicates;
mod killed;
mod liveness;
mod payments;
mod poison;
mod registrations;
mod support;
