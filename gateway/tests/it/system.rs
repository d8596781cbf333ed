//! The whole system for a test: real gateway and worker processes on a sandbox, and clients that behave as real ones do
//! (retry with the same key when the answer is 503 or does not come).

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use chrono::Utc;
use contracts::{
    Role,
    access_token::{AccessClaims, LIFETIME_SECS, kid},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{RequestBuilder, Response, StatusCode, header::HeaderMap};
use serde_json::Value;
use testkit::{Process, Sandbox, eventually, free_port};
use uuid::Uuid;

/// Signs access tokens here.
pub const JWT_SECRET: &str = "test-secret-of-access-tokens-0123456789";
const SECRET: &str = "test-secret-of-mailed-tokens-0123456789";

/// Longer than anything takes that must happen, on a busy machine too.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Settings of a gateway whose confirms a test holds up: it waits for them, however slow the machine is.
pub const PATIENT: [(&str, &str); 2] =
    [("REGISTRAR__AMQP__CONFIRM_TIMEOUT_MS", "60000"), ("REGISTRAR__LIMITS__REQUEST_MS", "120000")];
/// The same for workers whose transactions a test holds up.
pub const PATIENT_WORKERS: [(&str, &str); 2] =
    [("REGISTRAR__DATABASE__LOCK_TIMEOUT_MS", "120000"), ("REGISTRAR__DATABASE__STATEMENT_TIMEOUT_MS", "180000")];

/// Processes of one sandbox, and how to reach them.
pub struct System {
    pub http: reqwest::Client,
    /// Requests of `post_until_accepted` that were refused so far.
    pub refused: AtomicUsize,
    amqp_url: String,
    gateway_database: String,
    workers_database: String,
    files: PathBuf,
}

/// A gateway that runs.
pub struct Gateway {
    pub url: String,
    /// Its private listener.
    pub metrics_url: String,
    pub process: Process,
    http: reqwest::Client,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// JSON, or the text as it came.
    pub body: Value,
    /// From the request to here.
    pub after: Duration,
}

impl Gateway {
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    /// Waits until it hears live messages: readiness does not depend on them.
    pub async fn listens(&self) {
        eventually("the gateway listens", LIMIT, || async { self.metric("gateway_live_connected").await == 1.0 }).await;
    }

    /// One of its metrics, by name and labels; 0 where it was not counted yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics =
            reqwest::get(format!("{}/metrics", self.metrics_url)).await.expect("the private listener answers");
        let metrics = metrics.text().await.expect("text");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.trim().parse().expect("a number"))
    }
}

/// Sends, and reads the answer.
pub async fn answer(request: RequestBuilder) -> Answer {
    let asked = Instant::now();
    let response = request.send().await.expect("the gateway answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body, after: asked.elapsed() }
}

impl Answer {
    /// Its body, of an answer that has this status.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What a client learned of one request.
#[derive(Debug)]
pub struct Accepted {
    /// `op_…`.
    pub operation: String,
    /// Answers other than 202 before it.
    pub refusals: Vec<(u16, Duration)>,
}

impl System {
    pub fn of(sandbox: &Sandbox) -> Self {
        Self::with_broker(sandbox, sandbox.amqp_url())
    }

    /// On another broker than the sandbox's.
    pub fn with_broker(sandbox: &Sandbox, amqp_url: String) -> Self {
        let files = std::env::temp_dir().join(format!("registrar-files-{}", sandbox.vhost));
        std::fs::create_dir_all(&files).expect("the temporary folder is writable");
        Self {
            http: reqwest::Client::builder().timeout(Duration::from_secs(90)).build().expect("a client"),
            refused: AtomicUsize::new(0),
            amqp_url,
            gateway_database: sandbox.gateway_url(),
            workers_database: sandbox.workers_url(),
            files,
        }
    }

    /// With gateways that reach their database this way.
    pub fn with_gateway_database(mut self, url: String) -> Self {
        self.gateway_database = url;
        self
    }

    /// Starts a gateway and waits until it is ready.
    pub async fn gateway(&self, settings: &[(&str, &str)]) -> Gateway {
        let (port, metrics) = (free_port(), free_port());
        let mut env = self.common(&self.gateway_database, metrics);
        env.extend([
            ("REGISTRAR__LISTEN".to_owned(), format!("127.0.0.1:{port}")),
            ("REGISTRAR__REDIS__URL".to_owned(), testkit::setting("REDIS_URL")),
            ("REGISTRAR__SECRETS__OPERATION_ID".to_owned(), "test-secret-of-operation-ids-0123456789".to_owned()),
        ]);
        env.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let mut process = Process::start("gateway", &[], env);
        let url = format!("http://127.0.0.1:{port}");
        process.wait_ready(&format!("{url}/health/ready")).await;
        Gateway { url, metrics_url: format!("http://127.0.0.1:{metrics}"), process, http: self.http.clone() }
    }

    /// Starts a worker process and waits until it consumes. `all` is every pool but `documents`.
    pub async fn workers(&self, pools: &str) -> Process {
        self.workers_with(pools, &[]).await
    }

    /// The same with settings of its own.
    pub async fn workers_with(&self, pools: &str, settings: &[(&str, &str)]) -> Process {
        self.consuming("workers", &["run", "--pools", pools], settings).await
    }

    /// Starts the process of the pool `documents` and waits until it consumes.
    pub async fn renderer(&self) -> Process {
        self.consuming("renderer", &["run"], &[]).await
    }

    async fn consuming(&self, program: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Process {
        let metrics = free_port();
        let mut env = self.common(&self.workers_database, metrics);
        env.push(("REGISTRAR__SMTP__URL".to_owned(), testkit::setting("SMTP_URL")));
        env.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let mut process = Process::start(program, arguments, env);
        process.wait_ready(&format!("http://127.0.0.1:{metrics}/health/ready")).await;
        process
    }

    fn common(&self, database: &str, metrics: u16) -> Vec<(String, String)> {
        [
            ("REGISTRAR__ENVIRONMENT", "development"),
            ("REGISTRAR__PUBLIC_URL", "http://127.0.0.1:9"),
            ("REGISTRAR__METRICS_LISTEN", &format!("127.0.0.1:{metrics}")),
            ("REGISTRAR__DATABASE__URL", database),
            ("REGISTRAR__AMQP__URL", &self.amqp_url),
            ("REGISTRAR__FILES__URL", &format!("file://{}", self.files.display())),
            ("REGISTRAR__SECRETS__TOKENS", SECRET),
            ("REGISTRAR__SECRETS__JWT_HS256", JWT_SECRET),
            ("REGISTRAR__LOG__FORMAT", "pretty"),
            ("REGISTRAR__LOG__FILTER", "info"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Posts, and posts again under the same key, as the answer asks, until it is a 202.
    pub async fn post_until_accepted(&self, url: &str, token: Option<&str>, key: &str, body: &Value) -> Accepted {
        let mut refusals = Vec::new();
        for _ in 0..1_200 {
            let asked = Instant::now();
            match self.post(url, token, key, body).await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    let body: Value = answer.json().await.expect("a 202 has a JSON body");
                    let operation = body["id"].as_str().expect("an operation has an id").to_owned();
                    return Accepted { operation, refusals };
                }
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    assert_eq!(status, 503, "{:?}", answer.text().await);
                    refusals.push((status, asked.elapsed()));
                }
                Err(error) => {
                    tracing_note(&error);
                    refusals.push((0, asked.elapsed()));
                }
            }
            self.refused.fetch_add(1, Ordering::SeqCst);
            // Shorter than Retry-After asks, so that the fault is felt more often than a polite client would.
            tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await.ok();
        }
        panic!("never accepted: {refusals:?}");
    }

    /// One POST.
    pub async fn post(&self, url: &str, token: Option<&str>, key: &str, body: &Value) -> reqwest::Result<Response> {
        let mut request = self.http.post(url).header("Idempotency-Key", key).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await
    }
}

impl Drop for System {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.files).ok();
    }
}

fn tracing_note(error: &reqwest::Error) {
    eprintln!("no answer: {error}");
}

/// An access token as the gateway itself signs it.
pub fn token(user_id: Uuid, role: Role) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(kid("HS256", JWT_SECRET.as_bytes()));
    let claims = AccessClaims::new(user_id, role, Uuid::now_v7(), Utc::now(), LIFETIME_SECS);
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).expect("claims are plain JSON")
}
