//! The two interfaces of settling: for what a subscription collected, and for the events of one kind.

use futures::future::BoxFuture;

use super::{
    disposition::Disposition,
    outbound::Outbound,
    raw_event::{RawEvent, Undecodable},
};
use crate::runtime::shared::{Interrupted, PoolContext};

/// Deliveries that are settled together, as their events, in order.
#[derive(Default)]
pub struct Deliveries {
    /// The events that could be read.
    pub events: Vec<RawEvent>,
    /// The elements that could not.
    pub undecodable: Vec<Undecodable>,
}

/// Settles the deliveries of one queue.
pub trait Settler: Send + Sync {
    /// Settles deliveries, whatever they hold; returns what has to be published before they may be acked.
    fn settle<'a>(
        &'a self,
        pool: &'a PoolContext,
        deliveries: Deliveries,
    ) -> BoxFuture<'a, Result<Outbound, Interrupted>>;

    /// Returns how many rows an event of this kind writes, as estimated before it is parsed.
    fn weight(&self, kind: &str) -> usize;
}

/// Settles events of one kind.
pub trait KindSettler: Send + Sync {
    /// Settles events; returns one disposition each, in their order.
    fn settle<'a>(
        &'a self,
        pool: &'a PoolContext,
        events: &'a [RawEvent],
    ) -> BoxFuture<'a, Result<Vec<Disposition>, Interrupted>>;

    /// Returns how many rows an event of this kind writes, as estimated before it is parsed.
    fn weight(&self) -> usize;

    /// Returns whether the kind writes no operations rows.
    fn is_self_deduplicating(&self) -> bool;
}
