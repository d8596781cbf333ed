//! The specification of a subscription: its queue, and the limits that follow from its role.

use std::sync::Arc;

use crate::{
    config,
    runtime::{
        settling::Settler,
        shared::PoolContext,
        watch::{ArraySize, ConsumerState},
    },
};

/// The purpose of a subscription, from which its limits follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionRole {
    /// Settles a whole work queue, beside other consumers.
    Work,
    /// Settles one partition of a work queue, alone, because its order must hold.
    Partition,
    /// Tries, one by one, events whose process may have died of them.
    Quarantine,
    /// Parks dead letters.
    DeadLetters,
}

impl SubscriptionRole {
    /// Returns the maximum of rows that are settled in one transaction, by weight.
    pub fn rows_max(self, settings: &config::Runtime) -> usize {
        match self {
            Self::Quarantine => 1,
            Self::Work | Self::Partition | Self::DeadLetters => settings.batch_max,
        }
    }

    /// Returns the maximum of deliveries that are settled together.
    pub fn deliveries_max(self) -> usize {
        match self {
            Self::Quarantine => 1,
            Self::Work | Self::Partition | Self::DeadLetters => usize::MAX,
        }
    }

    /// Returns the maximum of deliveries that the broker sends before it waits for acks.
    pub fn prefetch(self, settings: &config::Runtime) -> u16 {
        match self {
            Self::Quarantine => 1,
            Self::Work | Self::Partition | Self::DeadLetters => settings.prefetch,
        }
    }

    /// Returns whether the broker delivers to one consumer of the queue at a time.
    pub fn is_single_active(self) -> bool {
        self == Self::Partition
    }
}

/// One subscription of a process.
pub struct SubscriptionSpec {
    /// Its pool.
    pub pool: Arc<PoolContext>,
    /// Its purpose.
    pub role: SubscriptionRole,
    /// The name of the queue it consumes.
    pub queue: String,
    /// The name of its consumer, unique in the broker and in the health of the process.
    pub consumer: String,
    /// Takes the sizes of its deliveries.
    pub array_size: ArraySize,
    /// Settles its deliveries.
    pub settler: Arc<dyn Settler>,
}

impl SubscriptionSpec {
    /// Reports the state of the consumer.
    pub fn report(&self, state: ConsumerState) {
        self.pool.shared.health.set(&self.consumer, state);
    }
}
