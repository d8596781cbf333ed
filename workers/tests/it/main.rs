//! Tests on real services: every test has a database and a vhost of its own.

mod clock;
mod duplicates;
mod email;
mod invoicing;
mod killed;
mod liveness;
mod notifications;
mod partitions;
mod payments;
mod poison;
mod privileges;
mod references;
mod registrations;
mod smtp_faults;
mod statements;
mod support;
