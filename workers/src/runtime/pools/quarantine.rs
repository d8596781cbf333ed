//! The settling of a quarantine: events whose process may have died of them are tried one by one. An array is first
//! taken apart, so that an event that kills its process is the only one in its delivery when it does.

use std::sync::Arc;

use contracts::{Queue, amqp::Target};
use futures::{FutureExt, future::BoxFuture};

use crate::runtime::{
    settling::{Deliveries, Outbound, Settler, WorkSettler, park},
    shared::{Interrupted, PoolContext},
};

/// Settles the deliveries of a queue's quarantine.
pub struct QuarantineSettler {
    queue: Queue,
    work: Arc<WorkSettler>,
}

impl QuarantineSettler {
    /// Returns the settler of this queue's quarantine.
    pub fn new(queue: Queue, work: Arc<WorkSettler>) -> Self {
        Self { queue, work }
    }

    /// Sends each event back to the quarantine in a delivery of its own.
    fn take_apart(&self, deliveries: Deliveries) -> Outbound {
        let mut outbound = Outbound::default();
        outbound.publish.extend(deliveries.undecodable.into_iter().map(park));
        let singles = deliveries.events.into_iter().map(|event| (Target::Quarantine(self.queue), event.bytes));
        outbound.publish.extend(singles);
        outbound
    }
}

impl Settler for QuarantineSettler {
    fn settle<'a>(
        &'a self,
        pool: &'a PoolContext,
        deliveries: Deliveries,
    ) -> BoxFuture<'a, Result<Outbound, Interrupted>> {
        if deliveries.events.len() <= 1 {
            return self.work.settle(pool, deliveries);
        }
        std::future::ready(Ok(self.take_apart(deliveries))).boxed()
    }

    fn weight(&self, kind: &str) -> usize {
        self.work.weight(kind)
    }
}
