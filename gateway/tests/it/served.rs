//! A gateway in the test's own process, on a database and a vhost of its own, on any free port.

use contracts::Queue;
use gateway::{
    config::{GatewayEnvironment, GatewaySettings},
    gateway::Gateway,
};
use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::SecretString;
use serde_json::Value;
use testkit::{Sandbox, fixtures::User};
use uuid::Uuid;

use crate::system::LIMIT;

/// The key that signs access tokens here.
pub const JWT_SECRET: &str = "a key of the tests' own, long enough for HS256";

/// A gateway that serves, and the services under it.
pub struct Served {
    /// Database and vhost.
    pub sandbox: Sandbox,
    /// The gateway.
    pub gateway: Gateway,
    /// Asks it.
    pub http: Client,
}

impl Served {
    /// Starts it and waits until it can make requests safe.
    pub async fn start(test_name: &str) -> Self {
        Self::start_with(test_name, |_| {}).await
    }

    /// The same, with settings of the test's own.
    pub async fn start_with(test_name: &str, change: impl FnOnce(&mut GatewaySettings)) -> Self {
        let sandbox = Sandbox::new(test_name).await;
        let mut settings = settings(&sandbox);
        change(&mut settings);
        let gateway = Gateway::start(settings).await.expect("the gateway starts");
        assert!(gateway.publisher().wait_connected(LIMIT).await, "the broker is there");
        Self { sandbox, gateway, http: Client::new() }
    }

    /// A request to be sent.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("http://{}{path}", self.gateway.address()))
    }

    /// A request to be sent.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("http://{}{path}", self.gateway.address()))
    }

    /// An access token of this user.
    pub fn token(&self, user: &User) -> String {
        self.gateway.auth().mint(user.id, user.role, Uuid::now_v7())
    }

    /// Messages in all work queues.
    pub async fn published(&self) -> u64 {
        let mut messages = 0;
        for queue in Queue::ALL {
            messages += self.sandbox.ready(queue.name()).await;
        }
        messages
    }

    /// Ends both, asserting that no message is left.
    pub async fn close(self) {
        self.gateway.stop().await;
        self.sandbox.close().await;
    }
}

/// Settings for this sandbox.
fn settings(sandbox: &Sandbox) -> GatewaySettings {
    let mut settings = GatewaySettings { environment: GatewayEnvironment::Development, ..GatewaySettings::default() };
    settings.listen.set_port(0);
    settings.metrics_listen.set_port(0);
    settings.database.url = SecretString::from(sandbox.gateway_url());
    settings.database.pool_max = 4;
    settings.amqp.url = SecretString::from(sandbox.amqp_url());
    settings.files.url = format!("file://{}/{}", env!("CARGO_TARGET_TMPDIR"), sandbox.vhost);
    settings.secrets.operation_id = SecretString::from("the operation ids' key, shared by all gateways");
    settings.secrets.tokens = SecretString::from("the mailed tokens' key, shared with the workers");
    settings.secrets.jwt_hs256 = SecretString::from(JWT_SECRET);
    settings.auth.bcrypt_cost = 4;
    settings.limits.connections_max = 1_000;
    settings.limits.waiters_max = 1_000;
    settings
}

/// Status and body of an answer.
pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("the gateway answers");
    let status = response.status();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
