//! The contract between the gateway and the workers: messages, envelope, ids, problems and, with the feature `amqp`,
//! the topology, the connection and the publisher. Nothing here knows HTTP or SQL.

pub mod access_token;
#[cfg(feature = "amqp")]
pub mod amqp;
pub mod catalog;
pub mod command;
pub mod envelope;
pub mod fingerprint;
pub mod ids;
mod kind;
pub mod messages;
mod named_enum;
pub mod outcome;
pub mod partitions;
pub mod principal;
pub mod problem;
pub mod raw_json;
pub mod schema;
mod text;
pub mod tokens;
pub mod trace;
pub mod validation;

pub use catalog::CATALOG;
pub use command::{Command, Queue};
pub use envelope::{Event, NewEvent};
pub use fingerprint::Fingerprint;
pub use outcome::{Outcome, Verdict};
pub use partitions::{KeyHash, Partitions, WorkQueue};
pub use principal::{Principal, Role};
pub use problem::{FieldError, Problem, ProblemType};
pub use raw_json::RawJson;
pub use trace::TraceParent;
