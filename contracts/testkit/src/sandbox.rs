//! A test's own database and vhost. Closing it asserts that no message is left behind: a message that a test leaves in a
//! queue is a message that the platform lost.

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

use crate::{broker::Vhost, database, environment, eventually::within, statements::keep_callsites_awake};

const DRAIN_LIMIT: Duration = Duration::from_secs(30);
const DROP_LIMIT: Duration = Duration::from_secs(10);
/// The time for which every queue must have been empty while there are consumers.
const QUIET: Duration = Duration::from_millis(3_000);
/// Most characters of a test's name in the sandbox's: Postgres silently cuts names at 63 bytes.
const NAME_CHARS_MAX: usize = 32;

/// A test's own database and vhost. End the test with [`Sandbox::close`]; a sandbox dropped without it fails the test.
pub struct Sandbox {
    /// Connections as the owner, who may do everything.
    pub db: PgPool,
    /// The name of the vhost and of the database. Unique: useful in addresses and references.
    pub vhost: String,
    broker: Vhost,
    connection: OnceCell<Connection>,
    closed: bool,
}

impl Sandbox {
    /// Creates both, under a name that contains the test's. Exchanges and queues are not declared.
    ///
    /// # Panics
    /// Where the services are not up.
    pub async fn new(test_name: &str) -> Self {
        keep_callsites_awake();
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

    /// The database's URL for its owner.
    pub fn owner_url(&self) -> String {
        self.database_url("DATABASE_URL")
    }

    /// The database's URL for the gateway.
    pub fn gateway_url(&self) -> String {
        self.database_url("GATEWAY_DATABASE_URL")
    }

    /// The database's URL for the workers.
    pub fn workers_url(&self) -> String {
        self.database_url("WORKERS_DATABASE_URL")
    }

    /// The vhost's URL.
    pub fn amqp_url(&self) -> String {
        self.broker.amqp_url.to_string()
    }

    /// An address that no other test uses: `<name>.<random>@example.org`.
    pub fn email(&self, name: &str) -> String {
        let random = self.vhost.rsplit('_').next().unwrap_or_default();
        format!("{name}.{random}@example.org")
    }

    /// Declares a plain quorum queue for the test; the topology is declared by the programs.
    pub async fn declare(&self, queue: &str) {
        Vhost::declare(self.connection().await, queue).await;
    }

    /// Deletes a queue under its consumers and declares a classic one instead, so that they cannot subscribe again.
    pub async fn replace_with_classic_queue(&self, queue: &str) {
        Vhost::replace_with_classic(self.connection().await, queue).await;
    }

    /// Ready messages of a queue: exact, without unacked ones. 0 where there is no such queue yet.
    pub async fn ready(&self, queue: &str) -> u64 {
        Vhost::counts(self.connection().await, queue).await.map_or(0, |counts| counts.ready.into())
    }

    /// Messages in a queue, including unacked ones; up to five seconds old.
    pub async fn queue_depth(&self, queue: &str) -> u64 {
        let queues = self.broker.queues().await;
        queues.iter().find(|info| info.name == queue).and_then(|info| info.messages).unwrap_or(0)
    }

    /// Number of consumers of a queue now.
    pub async fn consumers(&self, queue: &str) -> u64 {
        Vhost::counts(self.connection().await, queue).await.map_or(0, |counts| counts.consumers.into())
    }

    /// Publishes any bytes and awaits the confirm.
    pub async fn publish_raw(&self, exchange: &str, routing_key: &str, body: &[u8]) {
        Vhost::publish(self.connection().await, exchange, routing_key, body).await;
    }

    /// Takes and acks one message of a queue.
    pub async fn get(&self, queue: &str) -> Option<Bytes> {
        Vhost::get(self.connection().await, queue).await
    }

    /// Takes and acks every ready message of a queue without consumers, in order.
    pub async fn take_all(&self, queue: &str) -> Vec<Bytes> {
        Vhost::take_all(self.connection().await, queue).await
    }

    /// Deletes the messages of a queue that the test filled on purpose.
    pub async fn purge(&self, queue: &str) {
        Vhost::purge(self.connection().await, queue).await;
    }

    /// Queues that hold messages, with their numbers. Ready messages are counted exactly; unacked ones are counted only
    /// where there is a consumer.
    pub async fn left_behind(&self) -> Vec<(String, u64)> {
        let mut left = Vec::new();
        for info in self.broker.queues().await {
            // A gateway's queue on the live exchange: its messages are transient, and declaring it is refused.
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
    /// Where one is not, with its name.
    pub async fn assert_drained(&self) {
        let quiet_since = Mutex::new(None);
        let drained = within(DRAIN_LIMIT, || async {
            let left = self.left_behind().await;
            let consumed = self.is_consumed().await;
            let mut since = quiet_since.lock().expect("no code panics while it holds the time");
            if left.is_empty() {
                // Unacked messages are counted late: they are settled, or have reached the next queue, soon.
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

    /// Asserts that every queue is empty and deletes database and vhost. Stop processes and runtimes before: a running
    /// consumer may hold messages.
    ///
    /// # Panics
    /// Where a message is left.
    pub async fn close(mut self) {
        self.assert_drained().await;
        self.discard().await;
    }

    /// Deletes database and vhost without that assertion: for tests that leave messages in the queues on purpose.
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
        // Refused while one of Postgres's own workers, such as autovacuum, is connected to it.
        let dropped = within(DROP_LIMIT, || async { database::discard(&self.vhost).await.is_ok() });
        assert!(dropped.await.is_some(), "the database {} is ours to drop", self.vhost);
    }

    /// Returns true if any work queue has a consumer.
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
