//! A moving average of the events that an AMQP message holds, from which events waiting are estimated: the broker
//! counts messages only.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Weight of the newest deliveries in the moving average.
const NEWEST: f64 = 0.1;

/// Mean number of events in a delivery, of late; shared by the consumers of a pool.
#[derive(Clone, Debug)]
pub struct ArraySize(Arc<AtomicU64>);

impl ArraySize {
    /// Returns the average before any delivery: one event each.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1.0_f64.to_bits())))
    }

    /// Takes the events of so many deliveries into the average. Of two consumers at once one may be lost, which an
    /// average tolerates.
    pub fn record(&self, events: usize, deliveries: usize) {
        let seen = events as f64 / deliveries.max(1) as f64;
        let mean = self.mean() * (1.0 - NEWEST) + seen * NEWEST;
        self.0.store(mean.to_bits(), Ordering::Relaxed);
    }

    /// Returns the average, in events a delivery.
    pub fn mean(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}
