//! A test's own database and vhost. Closing it asserts that no message is left behind: what a test forgets in a queue is
//! a message that the platform lost.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contracts::Queue;
use lapin::Connection;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use crate::{broker::Vhost, database, environment, eventually::within};

const DRAIN_LIMIT: Duration = Duration::from_secs(30);
const DROP_LIMIT: Duration = Duration::from_secs(10);
/// How long every queue must have been empty under live consumers.
const QUIET: Duration = Duration::from_millis(3_000);
/// Postgres cuts names at 63 bytes, silently.
const NAME_CHARS_MAX: usize = 32;

/// A test's own database and vhost. End the test with [`Sandbox::close`]; a sandbox dropped without it fails the test.
pub struct Sandbox {
    /// Connections as the owner, who may do everything.
    pub db: PgPool,
    /// The vhost's name, also the database's. Unique: useful in addresses and references.
    pub vhost: String,
    broker: Vhost,
    connection: OnceCell<Connection>,
    closed: bool,
}

impl Sandbox {
    /// Makes them, under a name that tells the test. Exchanges and queues are not declared.
    ///
    /// # Panics
    /// Where the services are not up.
    pub async fn new(test_name: &str) -> Self {
        let word = |c: char| {
            if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }
        };
        let test: String = test_name.chars().map(word).take(NAME_CHARS_MAX).collect();
        let random = Uuid::new_v4().simple().to_string();
        let name = format!("test_{test}_{}", &random[..12]);
        database::create(&name).await;
        let broker = Vhost::create(&name).await;
        let owner = environment::with_path(&environment::url("DATABASE_URL"), &name);
        let db = PgPoolOptions::new().max_connections(8).connect_lazy(owner.as_str()).expect("the URL was used before");
        Self { db, vhost: name, broker, connection: OnceCell::new(), closed: false }
    }

    /// The database, as its owner.
    pub fn owner_url(&self) -> String {
        self.database_url("DATABASE_URL")
    }

    /// The database, as the gateway.
    pub fn gateway_url(&self) -> String {
        self.database_url("GATEWAY_DATABASE_URL")
    }

    /// The database, as the workers.
    pub fn workers_url(&self) -> String {
        self.database_url("WORKERS_DATABASE_URL")
    }

    /// The vhost.
    pub fn amqp_url(&self) -> String {
        self.broker.amqp_url.to_string()
    }

    /// An address that no other test writes to: `asha.<this test>@example.org`.
    pub fn email(&self, name: &str) -> String {
        let random = self.vhost.rsplit('_').next().unwrap_or_default();
        format!("{name}.{random}@example.org")
    }

    /// Declares a plain quorum queue of the test's own; ours are declared by whoever owns the topology.
    pub async fn declare(&self, queue: &str) {
        Vhost::declare(self.connection().await, queue).await;
    }

    /// Deletes a queue under its consumers and puts a classic one in its place: they cannot subscribe again.
    pub async fn replace_with_classic_queue(&self, queue: &str) {
        Vhost::replace_with_classic(self.connection().await, queue).await;
    }

    /// Messages ready in a queue: exact, without those that a consumer holds. 0 where there is no such queue yet.
    pub async fn ready(&self, queue: &str) -> u64 {
        Vhost::counts(self.connection().await, queue).await.map_or(0, |counts| counts.ready.into())
    }

    /// Messages in a queue, also those that a consumer holds; up to five seconds old.
    pub async fn queue_depth(&self, queue: &str) -> u64 {
        let queues = self.broker.queues().await;
        queues.iter().find(|info| info.name == queue).and_then(|info| info.messages).unwrap_or(0)
    }

    /// Whether somebody consumes from a queue now.
    pub async fn consumers(&self, queue: &str) -> u64 {
        Vhost::counts(self.connection().await, queue).await.map_or(0, |counts| counts.consumers.into())
    }

    /// Publishes any bytes and awaits the confirm.
    pub async fn publish_raw(&self, exchange: &str, routing_key: &str, body: &[u8]) {
        Vhost::publish(self.connection().await, exchange, routing_key, body).await;
    }

    /// Takes one message out of a queue, for good.
    pub async fn get(&self, queue: &str) -> Option<Bytes> {
        Vhost::get(self.connection().await, queue).await
    }

    /// Takes everything that is ready out of a queue that nobody consumes, for good, in its order.
    pub async fn take_all(&self, queue: &str) -> Vec<Bytes> {
        Vhost::take_all(self.connection().await, queue).await
    }

    /// Empties a queue that the test filled on purpose.
    pub async fn purge(&self, queue: &str) {
        Vhost::purge(self.connection().await, queue).await;
    }

    /// Queues with messages, and how many. Ready ones are counted exactly; held ones are possible only where there is a consumer.
    pub async fn left_behind(&self) -> Vec<(String, u64)> {
        let mut left = Vec::new();
        for info in self.broker.queues().await {
            // A gateway's own, on the live exchange: what it holds is nobody's loss, and asking is refused.
            if info.exclusive {
                continue;
            }
            let Some(counts) = Vhost::counts(self.connection().await, &info.name).await else {
                continue;
            };
            let held = if counts.consumers > 0 { info.messages.unwrap_or(0) } else { 0 };
            let messages = u64::from(counts.ready).max(held);
            if messages > 0 {
                left.push((info.name, messages));
            }
        }
        left
    }

    /// Waits until every queue is empty, at most 30 s.
    ///
    /// # Panics
    /// Where one is not, naming it.
    pub async fn assert_drained(&self) {
        let quiet_since = Mutex::new(None);
        let drained = within(DRAIN_LIMIT, || async {
            let left = self.left_behind().await;
            let consumed = self.is_consumed().await;
            let mut since = quiet_since.lock().expect("no code panics while it holds the time");
            if left.is_empty() {
                // What a consumer holds is counted late: it is done, or has moved on to the next queue, soon.
                !consumed || since.get_or_insert_with(Instant::now).elapsed() >= QUIET
            } else {
                *since = None;
                false
            }
        });
        if drained.await.is_none() {
            let left = self.left_behind().await;
            panic!("messages are left in vhost {} after {DRAIN_LIMIT:?}: {left:?}", self.vhost);
        }
    }

    /// Asserts that every queue is empty and throws database and vhost away. Stop processes and runtimes before: a
    /// consumer that is alive may hold messages.
    ///
    /// # Panics
    /// Where a message is left.
    pub async fn close(mut self) {
        self.assert_drained().await;
        self.discard().await;
    }

    /// Throws database and vhost away, whatever is left in the queues: for tests that end in the middle of things.
    pub async fn close_undrained(mut self) {
        self.discard().await;
    }

    async fn discard(&mut self) {
        self.closed = true;
        self.db.close().await;
        if let Some(connection) = self.connection.take() {
            connection.close(200, "done".into()).await.ok();
        }
        Vhost::discard(&self.vhost).await.expect("the vhost is ours to delete");
        // Refused while one of Postgres's own workers, such as autovacuum, is in there.
        let dropped = within(DROP_LIMIT, || async { database::discard(&self.vhost).await.is_ok() });
        assert!(dropped.await.is_some(), "the database {} is ours to drop", self.vhost);
    }

    /// Whether any work queue has a consumer.
    async fn is_consumed(&self) -> bool {
        for queue in Queue::ALL {
            if self.consumers(queue.name()).await > 0 {
                return true;
            }
        }
        false
    }

    async fn connection(&self) -> &Connection {
        self.connection.get_or_init(|| self.broker.connect()).await
    }

    fn database_url(&self, setting: &str) -> String {
        let url: Url = environment::with_path(&environment::url(setting), &self.vhost);
        url.to_string()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let name = self.vhost.clone();
        // On a thread of its own: a runtime cannot be entered from within another one.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                Vhost::discard(&name).await.ok();
                database::discard(&name).await.ok()
            })
        });
        cleaner.join().ok();
        if std::thread::panicking() {
            eprintln!("the failed test's database and vhost were {}; both are deleted", self.vhost);
        } else {
            panic!("the sandbox {} was dropped: end the test with `sandbox.close().await`", self.vhost);
        }
    }
}
