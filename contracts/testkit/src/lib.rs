//! What tests stand on: real Postgres, RabbitMQ and mail catcher, a database and a vhost a test, real processes, and a
//! proxy that hurts connections. Everything here panics with a sentence rather than returning an error: a test that
//! cannot be set up has failed.

mod broker;
mod database;
pub mod environment;
mod eventually;
pub mod fixtures;
mod mailbox;
mod process;
mod proxy;
mod sandbox;
mod statements;
mod table_lock;

pub use environment::setting;
pub use eventually::{Condition, eventually};
pub use mailbox::{Attachment, Mail, Mailbox};
pub use process::{Process, free_port};
pub use proxy::Proxy;
pub use sandbox::Sandbox;
pub use statements::Statements;
pub use table_lock::{TableLock, Waiter};
