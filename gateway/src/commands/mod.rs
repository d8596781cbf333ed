//! Writes. There are two kinds:
//!
//! - A write that changes only its own rows is an **edit** ([`edit`]): one transaction with its audit row, `If-Match` on a
//!   row version, the changed resource as the answer.
//! - A write with any consequence elsewhere (seats, money, mail, notifications, files of others) is a **command**
//!   ([`submit`]): published, answered 202 with its operation, settled by a worker.
//!
//! A write that carries a password or a token stays synchronous, and publishes only its mail.

pub mod audit;
pub mod edit;
mod fault_injection;
pub mod idempotency;
mod request;
pub mod sign_out;
pub mod submit;

pub use edit::{Edit, EditRequest};
pub use request::{CommandRequest, PublicCommandRequest};
pub use submit::{Commands, Operations};
