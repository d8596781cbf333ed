//! How long a connection may take: a request that has begun must bring its whole header soon, while one between requests
//! may idle. hyper has a single timer for both, so that a limit short enough for a client that dribbles would also cut
//! browsers and load balancers off between two requests.
//!
//! Invariant: whatever the client does, a connection without a request in hand ends after the idle limit or the header's,
//! and one with a request in hand when its client has taken nothing for the idle limit.

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
    /// Whether the client takes nothing of an answer in hand; the limit runs meanwhile.
    is_stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Header,
    /// The handlers limit the body themselves.
    InHand,
}

/// A request in hand, until this is dropped.
#[derive(Debug)]
pub struct Held(InHand);

impl InHand {
    /// Notes that there is one.
    pub fn hold(self) -> Held {
        self.0.fetch_add(1, Ordering::Release);
        Held(self)
    }
}

impl Held {
    /// Until the answer is whole: a body of unknown length may take as long as it likes, an event stream hours.
    pub fn until_whole(self, response: Response) -> Response {
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        let hold = move |frame| {
            let _until_dropped = &self;
            frame
        };
        response.map(|body| Body::new(body.map_frame(hold)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Release);
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
            is_stalled: false,
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

    /// A client that takes nothing of its answer for as long as it may idle is gone, or might as well be.
    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() || self.phase != Phase::InHand {
            self.is_stalled = false;
            return written;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            self.limit.as_mut().reset(Instant::now() + self.pace.idle);
        }
        ready!(self.limit.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        let held = in_hand.hold();
        assert!(tokio::time::timeout(Duration::from_millis(1_300), paced.read_u8()).await.is_err(), "still open");
        let held = held.until_whole(Response::new(Body::from_stream(futures::stream::pending::<io::Result<&[u8]>>())));
        assert!(tokio::time::timeout(Duration::from_millis(1_300), paced.read_u8()).await.is_err(), "not yet whole");
        drop(held);
        assert!(timed_out_after(&mut paced).await >= Duration::from_millis(990));
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_is_cut_off_and_who_takes_it_slowly_is_not() {
        let (mut client, mut paced, in_hand) = connection();
        client.write_all(b"G").await.expect("room");
        let _held = in_hand.hold();
        paced.read_u8().await.expect("sent");
        let slowly = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(600)).await;
                client.read_exact(&mut [0; 64]).await.expect("written");
            }
        };
        let (written, ()) = tokio::join!(paced.write_all(&[0; 4 * 64]), slowly);
        written.expect("each wait was short");
        let asked = Instant::now();
        let error = paced.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(asked.elapsed() >= Duration::from_millis(990));
    }
}
