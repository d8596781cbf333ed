//! One consumer's life: connect, subscribe, collect deliveries, have them settled, publish what they ask for, and
//! acknowledge; and everything anew when anything breaks.
//!
//! Invariants: a delivery is acked only after the follow-ups and forwards of all its events are confirmed; acks advance
//! only over the contiguous prefix of finished deliveries; nothing is nacked or rejected.

mod acknowledge;
mod collect;
mod consumer;
mod spec;

pub use consumer::consume;
pub use spec::{SubscriptionRole, SubscriptionSpec};
