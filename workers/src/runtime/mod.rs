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

mod bisection;
mod collect;
mod consumer;
mod dead_letters;
mod disposition;
mod effect_settler;
pub mod failure;
mod finisher;
pub mod handler;
mod handler_settler;
mod health;
mod inbox;
mod orphaned_queues;
mod pool;
mod queue_depths;
mod raw_event;
mod registry;

#[cfg(feature = "planted-bugs")]
pub mod fault_injection;

pub use consumer::Context;
pub use failure::{Failure, chain};
pub use handler::{Claim, Delivery, Effect, FollowUp, Handler, by_operation};
pub use health::Health;
pub use pool::{Pools, run};
pub use registry::Registry;
