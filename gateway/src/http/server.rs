//! The accept loop. `axum::serve` has neither a header-read timeout nor limits on connections, headers and backlog; here a
//! client that dribbles is cut off, and a connection too many waits in the kernel instead of starving the others.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use futures::TryFutureExt;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::timeouts::{ConnectionTimeouts, TimedConnection};
use crate::config::Limits;

/// File descriptors besides the clients' connections: database, broker, files, listeners.
const OWN_DESCRIPTORS: u64 = 512;
/// The buffer of a connection at most, each way; more than the largest header.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;
/// The pause after a failed accept: usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens with this backlog; a burst of 20,000 clients needs thousands.
///
/// # Errors
/// An address that cannot be bound.
pub fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// Raises the limit of open files as far as allowed; answers how many connections it leaves room for.
pub fn connections_allowed(limits: &Limits) -> usize {
    let wanted = limits.connections_max as u64 + OWN_DESCRIPTORS;
    let got = rlimit::increase_nofile_limit(wanted).unwrap_or(wanted);
    if got >= wanted {
        return limits.connections_max;
    }
    let allowed = got.saturating_sub(OWN_DESCRIPTORS).max(1) as usize;
    tracing::warn!(
        open_files = got,
        connections_max = limits.connections_max,
        allowed,
        "too few open files are allowed for limits.connections_max: raise the hard limit (`ulimit -Hn`, LimitNOFILE=) to {wanted}"
    );
    allowed
}

/// Serves until `stop`, then lets requests in flight finish, at most `drain_ms`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    connections_max: usize,
    stop: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    let http = http_builder(&limits);
    let timeouts = ConnectionTimeouts {
        header: Duration::from_millis(limits.header_read_ms),
        idle: Duration::from_millis(limits.idle_ms),
    };
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = stop.cancelled() => break,
        };
        let Some((stream, peer, permit)) = accepted else {
            continue;
        };
        let router = router.clone();
        let (stream, in_flight) = TimedConnection::new(stream, timeouts);
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let guard = in_flight.clone().start();
            router.clone().oneshot(request).map_ok(|response| guard.until_complete(response))
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            metrics::gauge!("gateway_connections").increment(1.0);
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
            }
            metrics::gauge!("gateway_connections").decrement(1.0);
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(Duration::from_millis(limits.drain_ms), graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and whole: waiting for more to send only delays them.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn http_builder(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        // `TimedConnection` limits that, and knows a connection that idles from one that dribbles.
        .header_read_timeout(None)
        // Also what is written ahead of a client that reads slowly.
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .max_headers(limits.headers_max)
        .max_header_size(limits.header_bytes)
        // No `pipeline_flush`: with it hyper buffers a streamed body without limit.
        .half_close(false);
    http
}
