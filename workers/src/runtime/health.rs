//! What liveness and readiness may claim. Liveness proves consumption: a consumer that lost its subscription while the
//! broker answers, or that sits on a batch for minutes, fails it; a broker or database that is away does not, because a
//! restart would not bring them back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a consumer may be without its subscription before the process counts as dead.
const UNSUBSCRIBED_MAX: Duration = Duration::from_secs(10);
/// How long one batch may take; far below the broker's consumer timeout of 30 minutes.
const SETTLING_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// What a consumer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Subscribed and waiting, as the broker confirmed a moment ago.
    Idle,
    /// Settling a batch.
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
    consumers: Arc<Mutex<HashMap<String, (State, Instant)>>>,
    started: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
}

impl Health {
    /// Nobody consumes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every consumer is known; before, nothing is ready.
    pub fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Notes what a consumer does now; the time counts from when the state changed, or a batch began.
    pub fn set(&self, consumer: &str, state: State) {
        let mut consumers = self.consumers.lock().expect("no code panics while it holds the states");
        let entry = consumers.entry(consumer.to_owned()).or_insert((state, Instant::now()));
        if entry.0 != state {
            *entry = (state, Instant::now());
        }
    }

    /// From now on not ready: the process finishes what it has in hand.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process should be kept, and what speaks against it.
    ///
    /// # Errors
    /// One sentence a consumer that does not consume.
    pub fn live(&self) -> Result<(), Vec<String>> {
        let consumers = self.consumers.lock().expect("no code panics while it holds the states");
        let dead: Vec<String> = consumers
            .iter()
            .filter_map(|(name, (state, since))| match state {
                State::Unsubscribed if since.elapsed() > UNSUBSCRIBED_MAX => {
                    Some(format!("{name} has had no subscription for {} s", since.elapsed().as_secs()))
                }
                State::Busy if since.elapsed() > SETTLING_TIME_MAX => {
                    Some(format!("{name} has been at one batch for {} s", since.elapsed().as_secs()))
                }
                _ => None,
            })
            .collect();
        if dead.is_empty() { Ok(()) } else { Err(dead) }
    }

    /// Whether every consumer has its subscription.
    ///
    /// # Errors
    /// One sentence a consumer that has none.
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
            .filter(|(_, (state, _))| !matches!(state, State::Idle | State::Busy))
            .map(|(name, (state, _))| format!("{name}: {state:?}"))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }
}
