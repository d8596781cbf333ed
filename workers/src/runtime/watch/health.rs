//! Liveness and readiness of the process. Liveness proves consumption: a consumer that lost its subscription while the
//! broker answers, or that settles the same deliveries for minutes, fails it; a broker or database that is away does
//! not, because a restart would not bring them back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Longest time that a consumer may be without its subscription before the process counts as dead.
const UNSUBSCRIBED_MAX: Duration = Duration::from_secs(10);
/// Longest time that one group of deliveries may take; far below the broker's consumer timeout of 30 minutes.
const SETTLING_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// The state of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerState {
    /// Subscribed and waiting, as the broker confirmed a moment ago.
    Idle,
    /// Settling deliveries.
    Busy,
    /// The broker cannot be reached.
    BrokerAway,
    /// Postgres does not answer; deliveries were given back.
    Paused,
    /// The broker answers, but there is no subscription.
    Unsubscribed,
}

/// The states of all consumers of this process.
#[derive(Clone, Default)]
pub struct Health {
    consumers: Arc<Mutex<HashMap<String, (ConsumerState, Instant)>>>,
    started: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
}

impl Health {
    /// Returns the health of a process that has no consumers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares that every consumer is known; before, the process is not ready.
    pub fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Sets the state of a consumer; its time counts from when the state changed last.
    pub fn set(&self, consumer: &str, state: ConsumerState) {
        let mut consumers = self.consumers.lock().expect("no code panics while it holds the states");
        let entry = consumers.entry(consumer.to_owned()).or_insert((state, Instant::now()));
        if entry.0 != state {
            *entry = (state, Instant::now());
        }
    }

    /// Declares that the process stops: it finishes what is in flight and is not ready any more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns `Ok` if the process should be kept.
    ///
    /// # Errors
    /// One sentence for each consumer that does not consume.
    pub fn live(&self) -> Result<(), Vec<String>> {
        let consumers = self.consumers.lock().expect("no code panics while it holds the states");
        let dead: Vec<String> = consumers
            .iter()
            .filter_map(|(name, (state, since))| match state {
                ConsumerState::Unsubscribed if since.elapsed() > UNSUBSCRIBED_MAX => {
                    Some(format!("{name} has had no subscription for {} s", since.elapsed().as_secs()))
                }
                ConsumerState::Busy if since.elapsed() > SETTLING_TIME_MAX => {
                    Some(format!("{name} has been settling the same deliveries for {} s", since.elapsed().as_secs()))
                }
                _ => None,
            })
            .collect();
        if dead.is_empty() { Ok(()) } else { Err(dead) }
    }

    /// Returns `Ok` if every consumer has its subscription.
    ///
    /// # Errors
    /// One entry for each consumer that has none, or the reason why the whole process is not ready.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(vec!["draining".to_owned()]);
        }
        if !self.started.load(Ordering::Relaxed) {
            return Err(vec!["starting".to_owned()]);
        }
        let consumers = self.consumers.lock().expect("no code panics while it holds the states");
        let missing: Vec<String> = consumers
            .iter()
            .filter(|(_, (state, _))| !matches!(state, ConsumerState::Idle | ConsumerState::Busy))
            .map(|(name, (state, _))| format!("{name}: {state:?}"))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }
}
