//! The table of handlers: one for each kind. A test asserts that registry and catalog agree.

use std::{collections::HashMap, sync::Arc};

use contracts::Command;

use super::{effect_settler::EffectSettler, handler_settler::HandlerSettler, settler::KindSettler};
use crate::runtime::handler::{Effect, Handler};

/// A kind's settler, with its weight computed once.
#[derive(Clone)]
struct Registered {
    settler: Arc<dyn KindSettler>,
    weight: usize,
}

/// Every kind with its handler.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: HashMap<&'static str, Registered>,
}

impl Registry {
    /// Returns an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handler of a kind.
    ///
    /// # Panics
    /// Where the kind has one already: that is a bug in the list of handlers.
    #[must_use]
    pub fn handler<H: Handler>(self, handler: H) -> Self {
        self.add::<H::Command>(Arc::new(HandlerSettler(handler)))
    }

    /// Adds the effect of a kind.
    ///
    /// # Panics
    /// As [`Self::handler`].
    #[must_use]
    pub fn effect<E: Effect>(self, effect: E) -> Self {
        self.add::<E::Command>(Arc::new(EffectSettler(effect)))
    }

    /// Returns the kinds that have a handler.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.kinds.keys().copied()
    }

    /// Returns the settler of a kind.
    pub(in crate::runtime) fn settler(&self, kind: &str) -> Option<&dyn KindSettler> {
        self.kinds.get(kind).map(|kind| kind.settler.as_ref())
    }

    /// Returns how many rows an event of this kind writes, as estimated before it is parsed.
    pub(in crate::runtime) fn weight(&self, kind: &str) -> usize {
        self.kinds.get(kind).map_or(1, |kind| kind.weight)
    }

    fn add<C: Command>(mut self, settler: Arc<dyn KindSettler>) -> Self {
        let registered = Registered { weight: settler.weight(), settler };
        let before = self.kinds.insert(C::KIND, registered);
        assert!(before.is_none(), "{} has two handlers", C::KIND);
        self
    }
}
