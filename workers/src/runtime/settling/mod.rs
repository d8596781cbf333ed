//! The settling of events that a subscription has collected: they are grouped by kind, parsed, looked up in the inbox,
//! applied by their handler, and committed.
//!
//! Invariants: effects, operations rows and outcomes are committed in one transaction or not at all; handlers never see
//! an event twice in one call, nor one that is settled; every event gets exactly one disposition, and a
//! failure that lies in one event changes the disposition of that event alone. Nothing here consumes or acknowledges:
//! the caller gets an [`Outbound`] to publish before it does.

mod bisection;
mod dead_letters;
mod disposition;
mod effect_settler;
mod handler_settler;
mod inbox;
mod item;
mod operations;
mod outbound;
mod raw_event;
mod registry;
mod settler;
mod work_settler;

pub use dead_letters::DeadLetterSettler;
pub use outbound::Outbound;
pub use raw_event::decode_body;
pub use registry::Registry;
pub use settler::{Deliveries, Settler};
pub use work_settler::{WorkSettler, park};
