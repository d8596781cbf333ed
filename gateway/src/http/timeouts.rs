//! Time limits of a connection: a request that has begun must bring its whole header soon, while one between requests
//! may idle. hyper has a single timer for both, so that a limit short enough for a client that dribbles would also cut
//! browsers and load balancers off between two requests.
//!
//! Invariant: whatever the client does, a connection without a request in flight ends after the idle limit or the header's,
//! and one with a request in flight when its client has read nothing for the idle limit.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// The two limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    /// From a header's first byte to its last.
    pub header: Duration,
    /// From one request's end to the next one's first byte.
    pub idle: Duration,
}

/// Counts the beginnings and ends of requests in flight: odd from a request's header until its answer. A request may
/// begin and end between two reads, which a mere flag would hide.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<AtomicU64>);

/// A connection that reads at this timeouts, or fails with [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct TimedConnection<T> {
    stream: T,
    timeouts: ConnectionTimeouts,
    in_flight: InFlight,
    seen: u64,
    phase: Phase,
    limit: Pin<Box<Sleep>>,
    /// The client reads nothing of its answer; the limit runs meanwhile.
    is_stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Header,
    /// The handlers limit the body themselves.
    InFlight,
}

/// A request in flight, until this is dropped.
#[derive(Debug)]
pub struct InFlightGuard(InFlight);

impl InFlight {
    /// Notes that a request has begun.
    pub fn start(self) -> InFlightGuard {
        self.0.fetch_add(1, Ordering::Release);
        InFlightGuard(self)
    }
}

impl InFlightGuard {
    /// Keeps the request in flight until its answer is complete: a body of unknown length may take hours, as an event
    /// stream does.
    pub fn until_complete(self, response: Response) -> Response {
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        let keep = move |frame| {
            let _until_dropped = &self;
            frame
        };
        response.map(|body| Body::new(body.map_frame(keep)))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Release);
    }
}

impl<T> TimedConnection<T> {
    /// Wraps an idle connection; the counter notes requests in flight.
    pub fn new(stream: T, timeouts: ConnectionTimeouts) -> (Self, InFlight) {
        let in_flight = InFlight::default();
        let connection = Self {
            stream,
            timeouts,
            in_flight: in_flight.clone(),
            seen: 0,
            phase: Phase::Idle,
            limit: Box::pin(tokio::time::sleep(timeouts.idle)),
            is_stalled: false,
        };
        (connection, in_flight)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        match phase {
            Phase::Idle => self.limit.as_mut().reset(Instant::now() + self.timeouts.idle),
            Phase::Header => self.limit.as_mut().reset(Instant::now() + self.timeouts.header),
            Phase::InFlight => {}
        }
    }

    /// Applies the idle limit to a client that reads nothing of its answer.
    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() || self.phase != Phase::InFlight {
            self.is_stalled = false;
            return written;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            self.limit.as_mut().reset(Instant::now() + self.timeouts.idle);
        }
        ready!(self.limit.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn observe(&mut self) {
        let now = self.in_flight.0.load(Ordering::Acquire);
        if now != self.seen {
            self.seen = now;
            self.enter(if now % 2 == 1 { Phase::InFlight } else { Phase::Idle });
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TimedConnection<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.observe();
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            if this.phase == Phase::Idle && buffer.filled().len() > before {
                this.enter(Phase::Header);
            }
            return Poll::Ready(read);
        }
        if this.phase == Phase::InFlight {
            return Poll::Pending;
        }
        ready!(this.limit.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TimedConnection<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(context, written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn open_connection() -> (DuplexStream, TimedConnection<DuplexStream>, InFlight) {
        let (client, server) = duplex(64);
        let timeouts = ConnectionTimeouts { header: Duration::from_millis(200), idle: Duration::from_millis(1_000) };
        let (connection, in_flight) = TimedConnection::new(server, timeouts);
        (client, connection, in_flight)
    }

    async fn timed_out_after(connection: &mut TimedConnection<DuplexStream>) -> Duration {
        let started = Instant::now();
        let error = connection.read_u8().await.expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        started.elapsed()
    }

    #[tokio::test]
    async fn an_idle_client_has_the_idle_limit_and_a_begun_header_the_shorter_one() {
        let (_client, mut connection, _in_flight) = open_connection();
        assert!(timed_out_after(&mut connection).await >= Duration::from_millis(990));
        let (mut client, mut connection, _in_flight) = open_connection();
        client.write_all(b"GE").await.expect("room");
        connection.read_u8().await.expect("sent");
        connection.read_u8().await.expect("sent");
        assert!(timed_out_after(&mut connection).await < Duration::from_millis(700));
    }

    #[tokio::test]
    async fn a_request_in_flight_is_not_cut_and_the_next_begins_afresh() {
        let (mut client, mut connection, in_flight) = open_connection();
        client.write_all(b"G").await.expect("room");
        connection.read_u8().await.expect("sent");
        let guard = in_flight.start();
        assert!(tokio::time::timeout(Duration::from_millis(1_300), connection.read_u8()).await.is_err(), "still open");
        let guard =
            guard.until_complete(Response::new(Body::from_stream(futures::stream::pending::<io::Result<&[u8]>>())));
        assert!(
            tokio::time::timeout(Duration::from_millis(1_300), connection.read_u8()).await.is_err(),
            "not yet whole"
        );
        drop(guard);
        assert!(timed_out_after(&mut connection).await >= Duration::from_millis(990));
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_cut_off_and_a_slow_one_is_not() {
        let (mut client, mut connection, in_flight) = open_connection();
        client.write_all(b"G").await.expect("room");
        let _guard = in_flight.start();
        connection.read_u8().await.expect("sent");
        let slowly = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(600)).await;
                client.read_exact(&mut [0; 64]).await.expect("written");
            }
        };
        let (written, ()) = tokio::join!(connection.write_all(&[0; 4 * 64]), slowly);
        written.expect("each wait was short");
        let started = Instant::now();
        let error = connection.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= Duration::from_millis(990));
    }
}
