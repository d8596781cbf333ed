//! One gateway, from its settings to its end: what `main` runs, and what a test starts in its own process.

use std::net::SocketAddr;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{auth::Auth, config::Settings, live, metrics, router, server, state::App};

/// A gateway that serves.
pub struct Gateway {
    app: App,
    address: SocketAddr,
    metrics_address: SocketAddr,
    stop: CancellationToken,
    serving: Vec<JoinHandle<()>>,
    following: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Listens and serves. Port 0 takes any free one.
    ///
    /// # Errors
    /// Settings that cannot be used, or an address that cannot be had.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        metrics::install()?;
        let limits = settings.limits.clone();
        let listener = server::listen(settings.listen, limits.backlog)?;
        let private = server::listen(settings.metrics_listen, limits.backlog)?;
        let (address, metrics_address) = (listener.local_addr()?, private.local_addr()?);
        let app = App::build(settings)?;
        // Before the first token is looked at; Postgres may be away, and then it is tried again by itself.
        if let Err(error) = app.auth.load_revocations(&app.db).await {
            tracing::warn!(%error, "revoked sign-ins are not known yet");
        }
        let following = vec![
            tokio::spawn(live::follow(app.clone())),
            tokio::spawn(Auth::follow_revocations(app.auth.clone(), app.db.clone())),
        ];
        let stop = CancellationToken::new();
        let connections_max = server::connections_allowed(&limits);
        let public =
            server::serve(listener, router::router(app.clone()), limits.clone(), connections_max, stop.clone());
        // Its own few places: whoever asks how the gateway does must be heard when clients hold all of theirs.
        let private = server::serve(private, metrics::private_router(app.clone()), limits, 64, stop.clone());
        let serving = vec![tokio::spawn(public), tokio::spawn(private)];
        tracing::info!(%address, %metrics_address, "serving");
        Ok(Self { app, address, metrics_address, stop, serving, following })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where Prometheus connects.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Its state.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Readiness red, no new connections, what is in hand finished; at most `limits.drain_ms`.
    pub async fn stop(self) {
        self.app.drain();
        self.stop.cancel();
        for serving in self.serving {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the accept loop ended badly");
            }
        }
        for following in self.following {
            following.abort();
        }
        self.app.db.close().await;
        tracing::info!("stopped");
    }
}
