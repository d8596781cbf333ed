//! One gateway, from its settings to its end: run by `main`, or by a test in its own process.

use std::net::SocketAddr;

use contracts::amqp::Publisher;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    auth::Auth,
    config::GatewaySettings,
    http::{metrics, server},
    live, router,
};

/// Connections of the private listener: its own few, so that metrics are answered while clients hold all of theirs.
const PRIVATE_CONNECTIONS_MAX: usize = 64;

/// A gateway that serves.
pub struct Gateway {
    app: App,
    address: SocketAddr,
    metrics_address: SocketAddr,
    stop: CancellationToken,
    listeners: Vec<JoinHandle<()>>,
    followers: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Listens and serves. Port 0 takes any free one.
    ///
    /// # Errors
    /// Settings that cannot be used, or an address that cannot be bound.
    pub async fn start(settings: GatewaySettings) -> anyhow::Result<Self> {
        metrics::install()?;
        let limits = settings.limits.clone();
        let listener = server::listen(settings.listen, limits.backlog)?;
        let private = server::listen(settings.metrics_listen, limits.backlog)?;
        let (address, metrics_address) = (listener.local_addr()?, private.local_addr()?);
        let app = App::build(settings)?;
        // Before the first token is verified; Postgres may be away, and then they are read again by the follower.
        if let Err(error) = app.auth().load_revocations(app.db()).await {
            tracing::warn!(%error, "revoked sign-ins are not known yet");
        }
        let amqp = app.amqp_settings("gateway live");
        let followers = vec![
            tokio::spawn(live::follow(app.live().clone(), app.auth().clone(), app.db().clone(), amqp)),
            tokio::spawn(Auth::follow_revocations(app.auth().clone(), app.db().clone())),
        ];
        let stop = CancellationToken::new();
        let connections_max = server::connections_allowed(&limits);
        let public = router::public(app.clone());
        let public = server::serve(listener, public, limits.clone(), connections_max, stop.clone());
        let private_router = router::private(app.clone());
        let private = server::serve(private, private_router, limits, PRIVATE_CONNECTIONS_MAX, stop.clone());
        let listeners = vec![tokio::spawn(public), tokio::spawn(private)];
        tracing::info!(%address, %metrics_address, "serving");
        Ok(Self { app, address, metrics_address, stop, listeners, followers })
    }

    /// Returns the address of the public listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of the private listener: metrics and health.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Returns the publisher of events.
    pub fn publisher(&self) -> &Publisher {
        self.app.publisher()
    }

    /// Returns authentication, which can sign access tokens.
    pub fn auth(&self) -> &Auth {
        self.app.auth()
    }

    /// Turns readiness red, takes no new connections, and lets requests in flight finish; at most `limits.drain_ms`.
    pub async fn stop(self) {
        self.app.drain();
        self.stop.cancel();
        for listener in self.listeners {
            if let Err(error) = listener.await {
                tracing::error!(%error, "the accept loop panicked");
            }
        }
        for follower in self.followers {
            follower.abort();
        }
        self.app.db().close().await;
        tracing::info!("stopped");
    }
}
