//! The catalog: every kind of message without its type, for all code that is generic over kinds. It is made by the
//! registry in [`crate::messages`]; a test in `workers` asserts that every kind in it has a handler.

pub use crate::{kind::Kind, messages::CATALOG};

impl Kind {
    /// The kind of this name.
    pub fn named(name: &str) -> Option<&'static Kind> {
        CATALOG.iter().find(|kind| kind.name == name)
    }
}
