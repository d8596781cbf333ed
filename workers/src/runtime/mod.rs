//! The worker runtime: the way of one message from its queue to its effects, its follow-ups and its ack.
//!
//! ```text
//! collect ▶ decode each ▶ drop the settled ▶ BEGIN ▶ apply(batch) ▶ settle operations ▶ COMMIT
//!         ▶ tell the live exchange ▶ publish follow-ups, await confirms ▶ ack the contiguous prefix
//! ```
//!
//! Invariants: a delivery is acked only after the follow-ups and forwards of all its events are confirmed; nothing is
//! nacked or rejected; handlers never see an event twice in a batch, nor one that is settled. This folder is the only
//! place in `workers` that knows AMQP.

mod collect;
mod consumer;
mod dead;
mod depth;
mod division;
mod effect_settler;
pub mod failure;
mod fate;
mod finisher;
pub mod handler;
mod handler_settler;
mod health;
mod inbox;
mod leftovers;
mod pool;
mod raw_event;
mod registry;

#[cfg(feature = "fault-injection")]
pub mod planted;

pub use consumer::Context;
pub use failure::{Failure, chain};
pub use handler::{Claim, Delivery, Effect, FollowUp, Handler, by_operation};
pub use health::Health;
pub use pool::{Pools, run};
pub use registry::Registry;
