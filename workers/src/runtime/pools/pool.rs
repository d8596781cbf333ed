//! The specifications of a pool's subscriptions.

use std::sync::Arc;

use contracts::{Queue, WorkQueue, amqp::topology};

use super::quarantine::QuarantineSettler;
use crate::runtime::{
    settling::{DeadLetterSettler, Registry, Settler, WorkSettler},
    shared::{PoolContext, Shared},
    subscription::{SubscriptionRole, SubscriptionSpec},
    watch::{ArraySize, ConsumerState},
};

/// One pool of the process: a work queue with its partitions, its quarantine and its orphaned queues.
pub struct Pool {
    pub queue: Queue,
    /// Mean size of the deliveries of its work queues.
    pub array_size: ArraySize,
    context: Arc<PoolContext>,
    settler: Arc<WorkSettler>,
}

impl Pool {
    /// Returns the pool of a queue.
    pub fn new(queue: Queue, shared: &Arc<Shared>, registry: &Arc<Registry>) -> Self {
        Self {
            queue,
            array_size: ArraySize::new(),
            context: Arc::new(PoolContext::new(queue.name(), Arc::clone(shared))),
            settler: Arc::new(WorkSettler::new(Arc::clone(registry))),
        }
    }

    /// Returns settings and connections, shared with the other pools.
    pub fn shared(&self) -> &Shared {
        &self.context.shared
    }

    /// Returns the number of consumers of one of its work queues in this process: a partition has one, so that its
    /// deliveries are committed one after the other.
    pub fn consumers(&self, queue: WorkQueue) -> u32 {
        let settings = &self.shared().settings;
        match queue.queue() {
            _ if queue.is_partition() => 1,
            Queue::Invoicing | Queue::Notifications => settings.follow_up_consumers,
            _ => settings.consumers,
        }
    }

    /// Returns a subscription to one of its work queues; `number` distinguishes its consumers.
    pub fn work(&self, queue: WorkQueue, number: u32) -> SubscriptionSpec {
        let role = if queue.is_partition() { SubscriptionRole::Partition } else { SubscriptionRole::Work };
        let consumer = format!("{queue}-{number}");
        specify(&self.context, role, queue.to_string(), consumer, self.array_size.clone(), self.settler.clone())
    }

    /// Returns the subscription to its quarantine.
    pub fn quarantine(&self) -> SubscriptionSpec {
        let queue = topology::quarantine(self.queue);
        let consumer = format!("{queue}-0");
        let settler = QuarantineSettler::new(self.queue, Arc::clone(&self.settler));
        specify(&self.context, SubscriptionRole::Quarantine, queue, consumer, ArraySize::new(), Arc::new(settler))
    }
}

/// Returns the subscription to the dead letters of all pools.
pub fn dead_letters(shared: &Arc<Shared>, registry: &Arc<Registry>) -> SubscriptionSpec {
    const NAME: &str = "dead-letters";
    let context = Arc::new(PoolContext::new(NAME, Arc::clone(shared)));
    let settler = Arc::new(DeadLetterSettler::new(Arc::clone(registry)));
    specify(
        &context,
        SubscriptionRole::DeadLetters,
        topology::DEAD.to_owned(),
        NAME.to_owned(),
        ArraySize::new(),
        settler,
    )
}

/// Returns a subscription; from now on the process is ready only once its consumer is.
fn specify(
    pool: &Arc<PoolContext>,
    role: SubscriptionRole,
    queue: String,
    consumer: String,
    array_size: ArraySize,
    settler: Arc<dyn Settler>,
) -> SubscriptionSpec {
    let consumer = format!("{consumer}-{}", std::process::id());
    let spec = SubscriptionSpec { pool: Arc::clone(pool), role, queue, consumer, array_size, settler };
    spec.report(ConsumerState::BrokerAway);
    spec
}
