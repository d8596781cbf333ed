//! What the tests of this crate share: real worker processes on a sandbox, and events put into their queues.

use std::time::Duration;

use chrono::Utc;
use contracts::{
    Command, NewEvent, Principal, Role, TraceParent,
    amqp::{AmqpSettings, Publisher, topology::LADDER},
    envelope::Origin,
    ids::new_id,
};
use serde_json::Value;
use testkit::{Process, Sandbox, eventually, free_port};
use uuid::Uuid;

pub const SETTLED_LIMIT: Duration = Duration::from_secs(60);

/// Settings of a process whose transactions a test holds up with a lock: they wait for it, however slow the machine is.
pub const PATIENT: [(&str, &str); 2] =
    [("REGISTRAR__DATABASE__LOCK_TIMEOUT_MS", "120000"), ("REGISTRAR__DATABASE__STATEMENT_TIMEOUT_MS", "180000")];

/// Worker processes of one sandbox.
pub struct Workers {
    amqp_url: String,
    workers_url: String,
    owner_url: String,
    files: std::path::PathBuf,
}

impl Workers {
    pub fn of(sandbox: &Sandbox) -> Self {
        let files = std::env::temp_dir().join(format!("registrar-files-{}", sandbox.vhost));
        std::fs::create_dir_all(&files).expect("the temporary folder is writable");
        Self { amqp_url: sandbox.amqp_url(), workers_url: sandbox.workers_url(), owner_url: sandbox.owner_url(), files }
    }

    /// Starts a process with these pools and waits until it consumes.
    pub async fn start(&self, pools: &str) -> Process {
        self.start_with(pools, &[]).await
    }

    /// The same with settings of its own, such as a planted fault.
    pub async fn start_with(&self, pools: &str, settings: &[(&str, &str)]) -> Process {
        let (mut process, port) = self.spawn(pools, settings);
        process.wait_ready(&format!("http://127.0.0.1:{port}/health/ready")).await;
        process
    }

    /// Starts a process of the pool `documents` and waits until it consumes.
    pub async fn renderer_with(&self, settings: &[(&str, &str)]) -> Process {
        let (mut process, port) = self.spawn_program("renderer", &["run"], settings);
        process.wait_ready(&format!("http://127.0.0.1:{port}/health/ready")).await;
        process
    }

    /// Starts a process without waiting; answers its private port too.
    pub fn spawn(&self, pools: &str, settings: &[(&str, &str)]) -> (Process, u16) {
        self.spawn_program("workers", &["run", "--pools", pools], settings)
    }

    fn spawn_program(&self, program: &str, arguments: &[&str], settings: &[(&str, &str)]) -> (Process, u16) {
        let port = free_port();
        let mut env = self.env(&self.workers_url, port);
        env.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        (Process::start(program, arguments, env), port)
    }

    /// Runs a command of the ops command line to its end, as the owner of the database; answers what it printed.
    pub async fn command(&self, arguments: &[&str]) -> String {
        self.command_with(arguments, &[]).await
    }

    /// The same with settings of its own.
    pub async fn command_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> String {
        let mut env = self.env(&self.owner_url, free_port());
        env.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let mut process = Process::start("workers", arguments, env);
        let status = process.wait().await;
        assert!(status.success(), "workers {arguments:?} ended with {status}: {}", process.output());
        process.output()
    }

    fn env(&self, database: &str, port: u16) -> Vec<(String, String)> {
        let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        vec![
            text("REGISTRAR__ENVIRONMENT", "development"),
            text("REGISTRAR__PUBLIC_URL", "http://127.0.0.1:9"),
            text("REGISTRAR__METRICS_LISTEN", &format!("127.0.0.1:{port}")),
            text("REGISTRAR__DATABASE__URL", database),
            text("REGISTRAR__AMQP__URL", &self.amqp_url),
            text("REGISTRAR__SMTP__URL", &testkit::setting("SMTP_URL")),
            text("REGISTRAR__FILES__URL", &format!("file://{}", self.files.display())),
            text("REGISTRAR__SECRETS__TOKENS", "test-secret-of-mailed-tokens-0123456789"),
            text("REGISTRAR__SECRETS__JWT_HS256", "test-secret-of-access-tokens-0123456789"),
            text("REGISTRAR__LOG__FORMAT", "pretty"),
            text("REGISTRAR__LOG__FILTER", "info"),
        ]
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.files).ok();
    }
}

/// A publisher on the sandbox's vhost, with the topology declared.
pub async fn publisher(sandbox: &Sandbox) -> Publisher {
    let publisher = Publisher::start(AmqpSettings::new(sandbox.amqp_url(), "test"));
    assert!(publisher.wait_connected(SETTLED_LIMIT).await, "the broker is up");
    publisher
}

/// An event as the gateway makes it.
pub fn event<C: Command>(principal: Principal, command: &C) -> NewEvent {
    let origin =
        Origin { source: "/test", principal, accepted_at: Utc::now(), trace: TraceParent::new(), parent: None };
    NewEvent::new(new_id(), command, &origin)
}

pub fn student(id: Uuid) -> Principal {
    Principal::User { id, role: Role::Student }
}

pub fn accountant(id: Uuid) -> Principal {
    Principal::User { id, role: Role::Accountant }
}

/// Waits until the operation is settled; answers its state and outcome.
pub async fn settled(sandbox: &Sandbox, id: Uuid) -> (String, Value) {
    eventually("the operation is settled", SETTLED_LIMIT, || async {
        sqlx::query_as("SELECT state, outcome FROM operations WHERE id = $1")
            .bind(id)
            .fetch_optional(&sandbox.db)
            .await
            .expect("operations can be read")
    })
    .await
}

/// Waits until a process, seen through its metrics, has acked so many groups of deliveries of a pool.
pub async fn acked(port: u16, pool: &str, groups: u64) {
    let line = format!("stage_seconds_count{{pool=\"{pool}\",stage=\"ack\"}} ");
    eventually("the deliveries are acked", SETTLED_LIMIT, || async {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.ok()?;
        let metrics = answer.text().await.ok()?;
        let count: u64 = metrics.lines().find_map(|l| l.strip_prefix(&line))?.trim().parse().ok()?;
        (count >= groups).then_some(())
    })
    .await;
}

/// Messages on the retry ladder, whichever rung each has reached.
pub async fn put_off(sandbox: &Sandbox) -> u64 {
    let mut messages = 0;
    for rung in LADDER {
        messages += sandbox.ready(&rung.queue()).await;
    }
    messages
}

/// One number from the database.
pub async fn count(sandbox: &Sandbox, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&sandbox.db).await.expect("a counting query")
}

/// Takes every event out of a queue: kind and id, sorted, each once.
pub async fn take_events(sandbox: &Sandbox, queue: &str) -> Vec<(String, Uuid)> {
    let mut events = std::collections::BTreeSet::new();
    while let Some(body) = sandbox.get(queue).await {
        let array: Vec<Value> = serde_json::from_slice(&body).expect("a CloudEvents batch");
        for event in array {
            let kind = event["type"].as_str().expect("every event has a type").to_owned();
            events.insert((kind, event["id"].as_str().and_then(|id| id.parse().ok()).expect("every event has an id")));
        }
    }
    events.into_iter().collect()
}

/// WorkerSettings as a process of this sandbox would read them, from a file.
pub fn settings(sandbox: &Sandbox) -> workers::config::WorkerSettings {
    let file = std::env::temp_dir().join(format!("{}.toml", sandbox.vhost));
    let lines = Workers::of(sandbox).env(&sandbox.workers_url(), free_port()).into_iter().map(|(key, value)| {
        let key = key.trim_start_matches("REGISTRAR__").to_lowercase().replace("__", ".");
        format!("{key} = {value:?}\n")
    });
    std::fs::write(&file, lines.collect::<String>()).expect("the temporary folder is writable");
    let settings = workers::config::WorkerSettings::load(Some(file.clone())).expect("complete settings");
    std::fs::remove_file(file).ok();
    settings
}
