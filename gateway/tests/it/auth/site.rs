//! A real gateway on a database and a vhost of its own, and what the tests of sign-in ask it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use contracts::{Role, ids::new_id, tokens::MailTokens};
use gateway::{config::GatewaySettings, gateway::Gateway};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use testkit::{Sandbox, fixtures};
use uuid::Uuid;

use crate::system::LIMIT;

/// Of this gateway.
pub const JWT_SECRET: &str = "an HS256 secret of a test, 32 bytes or more";
/// Of this gateway.
pub const TOKENS_SECRET: &str = "a secret of mailed tokens, 32 bytes or more";

/// A gateway and who asks it.
pub struct Site {
    /// Database and vhost.
    pub sandbox: Sandbox,
    /// Asked by the tests.
    pub gateway: Gateway,
    /// Asks.
    pub http: Client,
}

impl Site {
    pub async fn new(test: &str) -> Self {
        let sandbox = Sandbox::new(test).await;
        let gateway = start(&sandbox).await;
        Self { sandbox, gateway, http: Client::new() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address())
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.http.post(self.url(path)).json(&body).send().await.expect("the gateway answers")
    }

    pub async fn me(&self, token: &str) -> Response {
        send(self.http.get(self.url("/v1/me")).bearer_auth(token)).await
    }

    pub async fn login(&self, email: &str, password: &str) -> Response {
        self.post("/v1/auth/login", json!({ "email": email, "password": password })).await
    }

    pub async fn refresh(&self, token: &str) -> Response {
        self.post("/v1/auth/refresh", json!({ "refresh_token": token })).await
    }

    /// Signs a new student in: access token and refresh token.
    pub async fn student(&self, name: &str) -> (String, String) {
        let user = fixtures::user(&self.sandbox.db, &self.sandbox.email(name), Role::Student).await;
        let tokens = ok(self.login(&user.email, fixtures::PASSWORD).await).await;
        (text(&tokens, "access_token"), text(&tokens, "refresh_token"))
    }

    /// A link that was mailed; opening one with a registration confirms it.
    pub async fn mailed_link(&self, user_id: Uuid, registration_id: Option<Uuid>) -> String {
        let id = new_id();
        sqlx::query(
            "INSERT INTO user_tokens (id, user_id, purpose, registration_id, expires_at)
             VALUES ($1, $2, 'magic_link', $3, now() + interval '1 hour')",
        )
        .bind(id)
        .bind(user_id)
        .bind(registration_id)
        .execute(&self.sandbox.db)
        .await
        .expect("the row is valid");
        MailTokens::new(TOKENS_SECRET.as_bytes()).encode(id)
    }

    pub async fn close(self) {
        self.gateway.stop().await;
        std::fs::remove_dir_all(files_of(&self.sandbox)).ok();
        self.sandbox.close().await;
    }
}

pub async fn start(sandbox: &Sandbox) -> Gateway {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut settings = GatewaySettings { listen: loopback, metrics_listen: loopback, ..GatewaySettings::default() };
    settings.database.url = sandbox.gateway_url().into();
    settings.amqp.url = sandbox.amqp_url().into();
    settings.files.url = format!("file://{}", files_of(sandbox).display());
    settings.secrets.operation_id = "a secret of operation ids, 32 bytes or more".to_owned().into();
    settings.secrets.tokens = TOKENS_SECRET.to_owned().into();
    settings.secrets.jwt_hs256 = JWT_SECRET.to_owned().into();
    settings.auth.bcrypt_cost = 4;
    let gateway = Gateway::start(settings).await.expect("the settings are good");
    assert!(gateway.publisher().wait_connected(LIMIT).await, "the broker is there");
    gateway
}

fn files_of(sandbox: &Sandbox) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(&sandbox.vhost)
}

pub async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("the gateway answers")
}

pub async fn ok(response: Response) -> Value {
    let status = response.status();
    let body = response.text().await.expect("a body");
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

pub fn text(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap_or_else(|| panic!("`{field}` is missing in {body}")).to_owned()
}
