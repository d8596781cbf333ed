//! The pools of one process: for each of its work queues the consumers, one consumer of the quarantine, and those of
//! orphaned queues; besides, if asked for, one that drains the dead letters.
//!
//! Invariant: everything a process consumes is specified in `pool`, and nowhere else.

mod orphaned_queues;
mod pool;
mod quarantine;
mod run;

pub use run::{Pools, run};
