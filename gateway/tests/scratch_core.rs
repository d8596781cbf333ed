//! Scratch.
#[path = "it/bad_input.rs"]
mod bad_input;
#[path = "it/served.rs"]
mod served;
