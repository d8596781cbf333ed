//! The test harness: real Postgres, RabbitMQ and mail catcher, a database and a vhost per test, real processes, and a
//! proxy that disturbs connections. Everything here panics with an explanation rather than returning an error: a test
//! that cannot be set up has failed.

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
pub use mailbox::{Mailbox, ReceivedAttachment, ReceivedMail};
pub use process::{Process, free_port};
pub use proxy::Proxy;
pub use sandbox::Sandbox;
pub use statements::Statements;
pub use table_lock::{LockWaiter, TableLock};
