//! The reports of a process about itself: the health of its consumers, and how much waits in the queues.
//!
//! Invariant: nothing here takes part in settling. Other folders of the runtime write their state here; this folder
//! imports none of them.

mod array_size;
mod health;
mod queue_depths;

pub use array_size::ArraySize;
pub use health::{ConsumerState, Health};
pub use queue_depths::report;
