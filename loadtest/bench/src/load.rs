//! The load on the gateways. Closed model: each connection sends its next request when the last is answered. Open
//! model: requests arrive by a Poisson process, whether or not earlier ones are answered; each free connection takes
//! the next arrival, waits until it is due and sends it. Where all connections are busy an arrival is sent late, and
//! its latency still counts from the time at which it was due.
//!
//! Invariant: no request is abandoned. A 503 is repeated after its Retry-After, and after a broken connection the
//! request is sent again, under the same key, so that in the end every key that was sent is answered.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use rand::RngExt as _;

use crate::{connection::Connection, cpu, request::Requests};

const ATTEMPTS_MAX: usize = 100;
/// Longest time from the end of the load to the last response.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);

/// A load: the requests, the gateways and the model.
#[derive(Clone)]
pub(crate) struct Load {
    /// Rendered requests.
    pub requests: Arc<Requests>,
    /// The requests of this load.
    pub range: Range<usize>,
    /// Gateways, over which the connections are spread.
    pub gateways: Vec<SocketAddr>,
    /// Number of connections.
    pub connections: usize,
    /// Number of driver threads.
    pub threads: usize,
    /// Closed or open model.
    pub model: Model,
    /// Time after which no request begins.
    pub duration: Duration,
    /// Requests that are sent a second time, for each 100 requests.
    pub duplicates_percent: usize,
}

/// The model of arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Model {
    /// A request begins when the one before it on its connection is answered.
    Closed,
    /// Requests arrive by a Poisson process at this mean rate, requests a second.
    Open(u32),
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Model::Closed => f.write_str("closed"),
            Model::Open(rate) => write!(f, "open, {rate}/s"),
        }
    }
}

/// One attempt to send a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// From the beginning of the load until the request was due, microseconds; the same for all attempts of one
    /// request.
    pub due_us: u64,
    /// From the time at which the request was due to the response of this attempt, microseconds.
    pub took_us: u64,
    /// Status code; 0 where the connection broke.
    pub status: u16,
    /// True if the key had been sent before.
    pub duplicate: bool,
}

/// The result of a load.
pub(crate) struct LoadOutcome {
    /// Time of the first request.
    pub began: DateTime<Utc>,
    /// All attempts.
    pub samples: Vec<Sample>,
    /// The requests that were sent.
    pub sent: Range<usize>,
    /// CPU time of the driver's threads during the load.
    pub driver_cpu: Duration,
}

/// State shared by all connections.
struct Shared {
    load: Load,
    /// Released when the connections of all threads are open.
    ready: Barrier,
    began: OnceLock<Instant>,
    /// Number of requests and duplicates handed to connections.
    turns: AtomicUsize,
    next: AtomicUsize,
    /// Arrival times of the open model, microseconds from the beginning.
    arrivals_us: Vec<u64>,
}

struct Turn {
    request: usize,
    duplicate: bool,
    due: Instant,
}

/// Puts the load on the gateways and returns when every request is answered.
///
/// # Errors
/// Where a gateway refuses connections at the beginning, a request is not accepted in [`ATTEMPTS_MAX`] attempts, or
/// responses are missing [`ANSWERS_WITHIN`] after the end.
pub(crate) async fn run(load: Load) -> anyhow::Result<LoadOutcome> {
    let threads = load.threads.min(load.connections).max(1);
    let mut pools: Vec<Vec<Connection>> = (0..threads).map(|_| Vec::new()).collect();
    for index in 0..load.connections {
        pools[index % threads].push(Connection::new(load.gateways[index % load.gateways.len()]));
    }
    let first = load.range.start;
    let arrivals_us = match load.model {
        Model::Closed => Vec::new(),
        Model::Open(rate) => arrivals(rate, load.duration),
    };
    let shared = Arc::new(Shared {
        load,
        ready: Barrier::new(threads),
        began: OnceLock::new(),
        turns: AtomicUsize::new(0),
        next: AtomicUsize::new(first),
        arrivals_us,
    });
    let drivers: Vec<_> = pools
        .into_iter()
        .map(|pool| {
            let shared = shared.clone();
            tokio::task::spawn_blocking(move || drive(&shared, pool))
        })
        .collect();
    let (mut samples, mut driver_cpu) = (Vec::new(), Duration::ZERO);
    for driver in drivers {
        let (of_driver, cpu) = driver.await.context("a driver thread ended")??;
        samples.extend(of_driver);
        driver_cpu += cpu;
    }
    let began = Utc::now() - shared.began.get().map(Instant::elapsed).unwrap_or_default();
    let sent = first..shared.next.load(Ordering::Relaxed).min(shared.load.range.end);
    Ok(LoadOutcome { began, samples, sent, driver_cpu })
}

/// Runs one driver thread with a runtime of its own, so that threads share nothing but two counters.
fn drive(shared: &Arc<Shared>, mut connections: Vec<Connection>) -> anyhow::Result<(Vec<Sample>, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let opened = runtime.block_on(futures::future::try_join_all(connections.iter_mut().map(Connection::open)));
    shared.ready.wait();
    opened.context("a gateway refuses connections")?;
    shared.began.get_or_init(Instant::now);
    let cpu_before = cpu::of_current_thread();
    let samples = runtime.block_on(async {
        let tasks: Vec<_> =
            connections.into_iter().map(|connection| tokio::spawn(converse(shared.clone(), connection))).collect();
        let answers = async {
            let mut samples = Vec::new();
            for task in tasks {
                samples.extend(task.await.context("a connection's task ended")??);
            }
            anyhow::Ok(samples)
        };
        let limit = shared.load.duration + ANSWERS_WITHIN;
        tokio::time::timeout(limit, answers).await.context("responses are missing two minutes after the load")?
    })?;
    Ok((samples, cpu::of_current_thread().saturating_sub(cpu_before)))
}

/// Sends requests on one connection until none is left.
async fn converse(shared: Arc<Shared>, mut connection: Connection) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    while let Some(turn) = shared.next_turn() {
        if turn.due > Instant::now() {
            tokio::time::sleep_until(turn.due.into()).await;
        }
        for attempt in 1.. {
            let answer = connection.exchange(shared.load.requests.bytes(turn.request)).await;
            let status = answer.as_ref().map_or(0, |answer| answer.status);
            samples.push(shared.sample(&turn, status));
            let pause = match answer {
                Ok(answer) if answer.status != 503 => break,
                Ok(answer) => Duration::from_secs(answer.retry_after.unwrap_or(1)),
                Err(_) => Duration::from_millis(100),
            };
            ensure!(attempt < ATTEMPTS_MAX, "a request was not accepted in {ATTEMPTS_MAX} attempts");
            // Jitter, so that clients with the same Retry-After do not return at the same moment.
            let jitter = rand::rng().random_range(0.0..0.5);
            tokio::time::sleep(pause + pause.mul_f64(jitter)).await;
        }
    }
    Ok(samples)
}

impl Shared {
    fn began(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
    }

    /// The next request to send; none when the time is over or no request is left.
    fn next_turn(&self) -> Option<Turn> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let due = match self.load.model {
            Model::Closed => Instant::now(),
            Model::Open(_) => self.began() + Duration::from_micros(*self.arrivals_us.get(turn)?),
        };
        if due.duration_since(self.began()) >= self.load.duration {
            return None;
        }
        if let Some(request) = self.request_again(turn) {
            return Some(Turn { request, duplicate: true, due });
        }
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        (request < self.load.range.end).then_some(Turn { request, duplicate: false, due })
    }

    /// A request to repeat, at every turn that `duplicates_percent` asks for: one that was sent a while ago, most
    /// likely on another connection.
    fn request_again(&self, turn: usize) -> Option<usize> {
        let percent = self.load.duplicates_percent;
        if percent == 0 || turn % (100 + percent) < 100 {
            return None;
        }
        let until =
            self.next.load(Ordering::Relaxed).min(self.load.range.end).checked_sub(2 * self.load.connections)?;
        (until > self.load.range.start).then(|| rand::rng().random_range(self.load.range.start..until))
    }

    fn sample(&self, turn: &Turn, status: u16) -> Sample {
        Sample {
            due_us: micros(turn.due.duration_since(self.began())),
            took_us: micros(turn.due.elapsed()),
            status,
            duplicate: turn.duplicate,
        }
    }
}

/// Arrival times of a Poisson process, microseconds.
fn arrivals(rate: u32, duration: Duration) -> Vec<u64> {
    let (mut at, mut arrivals) = (0.0, Vec::new());
    let mut rng = rand::rng();
    while at < duration.as_secs_f64() {
        arrivals.push((at * 1e6) as u64);
        at += -(1.0 - rng.random::<f64>()).ln() / f64::from(rate);
    }
    arrivals
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_their_rate_and_in_order() {
        let arrivals = arrivals(1_000, Duration::from_secs(20));
        assert!((18_000..22_000).contains(&arrivals.len()), "{}", arrivals.len());
        assert!(arrivals.is_sorted() && arrivals.last().is_some_and(|last| *last < 20_000_000));
    }
}
