//! The worker runtime: everything between a queue and a handler.
//!
//! # Life of a message
//!
//! ```text
//! collect ▶ decode each ▶ drop the settled ▶ BEGIN ▶ apply(deliveries) ▶ settle operations ▶ COMMIT
//!         ▶ publish the live update ▶ publish follow-ups, await confirms ▶ ack the contiguous prefix
//! ```
//!
//! Invariants: a delivery is acked only after the follow-ups and forwards of all its events are confirmed; nothing is
//! nacked or rejected; handlers never see an event twice in one call, nor one that is settled. This folder is the only
//! place in `workers` that knows AMQP.
//!
//! # Code map
//!
//! Imports run one way, from the top of this list to its end:
//! - `pools`: which subscriptions a process runs.
//! - `subscription`: one consumer's life, from its connection to its acks.
//! - `settling`: from collected events to committed outcomes, and the messages to publish before the ack.
//! - `shared`: settings, database and publisher, which all of these use.
//! - `handler`, `failure`: what a pool's code implements and returns; all that other folders of `workers` need.
//! - `watch`: health and queue depths.

pub mod failure;
pub mod handler;
mod pools;
mod settling;
mod shared;
mod subscription;
mod watch;

pub use failure::{Failure, chain};
pub use handler::{Claim, Delivery, Effect, FollowUp, Handler, by_operation};
pub use pools::{Pools, run};
pub use settling::Registry;
pub use watch::Health;
