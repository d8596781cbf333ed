//! How long a connection may take: a request that has begun must bring its whole header soon, while one between requests
//! may idle. hyper has a single timer for both, so that a limit short enough for a client that dribbles would also cut
//! browsers and load balancers off between two requests.
//!
//! Invariant: whatever the client does, a connection without a request in hand ends after the idle limit or the header's.

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

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From a header's first byte to its last.
    pub header: Duration,
    /// From one request's end to the next one's first byte.
    pub idle: Duration,
}

/// Counts the beginnings and ends of requests in hand: odd while one's header has been read and it has not been answered.
/// A request may begin and end between two reads, which a mere flag would hide.
#[derive(Clone, Debug, Default)]
pub struct InHand(Arc<AtomicU64>);

/// A connection that reads at this pace, or fails with [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Paced<T> {
    stream: T,
    pace: Pace,
    in_hand: InHand,
    seen: u64,
    phase: Phase,
    limit: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Header,
    /// The handlers limit the body themselves.
    InHand,
}

impl InHand {
    /// Notes that it is, until the future ends.
    pub async fn during<F: Future>(self, work: F) -> F::Output {
        self.0.fetch_add(1, Ordering::Release);
        let answer = work.await;
        self.0.fetch_add(1, Ordering::Release);
        answer
    }
}

impl<T> Paced<T> {
    /// The connection, idle, and where to note that a request is in hand.
    pub fn new(stream: T, pace: Pace) -> (Self, InHand) {
        let in_hand = InHand::default();
        let paced = Self {
            stream,
            pace,
            in_hand: in_hand.clone(),
            seen: 0,
            phase: Phase::Idle,
            limit: Box::pin(tokio::time::sleep(pace.idle)),
        };
        (paced, in_hand)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        match phase {
            Phase::Idle => self.limit.as_mut().reset(Instant::now() + self.pace.idle),
            Phase::Header => self.limit.as_mut().reset(Instant::now() + self.pace.header),
            Phase::InHand => {}
        }
    }

    fn observe(&mut self) {
        let now = self.in_hand.0.load(Ordering::Acquire);
        if now != self.seen {
            self.seen = now;
            self.enter(if now % 2 == 1 { Phase::InHand } else { Phase::Idle });
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
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
        if this.phase == Phase::InHand {
            return Poll::Pending;
        }
        ready!(this.limit.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
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
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn connection() -> (DuplexStream, Paced<DuplexStream>, InHand) {
        let (client, server) = duplex(64);
        let pace = Pace { header: Duration::from_millis(200), idle: Duration::from_millis(1_000) };
        let (paced, in_hand) = Paced::new(server, pace);
        (client, paced, in_hand)
    }

    async fn timed_out_after(paced: &mut Paced<DuplexStream>) -> Duration {
        let asked = Instant::now();
        let error = paced.read_u8().await.expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        asked.elapsed()
    }

    #[tokio::test]
    async fn who_sends_nothing_may_idle_and_who_has_begun_must_go_on() {
        let (_client, mut paced, _in_hand) = connection();
        assert!(timed_out_after(&mut paced).await >= Duration::from_millis(990));
        let (mut client, mut paced, _in_hand) = connection();
        client.write_all(b"GE").await.expect("room");
        paced.read_u8().await.expect("sent");
        paced.read_u8().await.expect("sent");
        assert!(timed_out_after(&mut paced).await < Duration::from_millis(700));
    }

    #[tokio::test]
    async fn a_request_in_hand_is_not_cut_and_the_next_begins_afresh() {
        let (mut client, mut paced, in_hand) = connection();
        client.write_all(b"G").await.expect("room");
        paced.read_u8().await.expect("sent");
        let work = in_hand.during(tokio::time::timeout(Duration::from_millis(1_300), paced.read_u8()));
        assert!(work.await.is_err(), "still open");
        assert!(timed_out_after(&mut paced).await >= Duration::from_millis(990));
    }
}
