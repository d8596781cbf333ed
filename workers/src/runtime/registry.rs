//! Which code settles which kind. A test asserts that the registry and the catalog agree.

use std::{collections::HashMap, sync::Arc};

use contracts::Command;

use super::{
    effect_settler::EffectSettler,
    handler::{Effect, Handler},
    handler_settler::{HandlerSettler, Settle},
};

/// One kind's handler, and what is asked of it often.
#[derive(Clone)]
pub(super) struct Registered {
    pub settler: Arc<dyn Settle>,
    pub weight: usize,
}

/// Every kind with its handler.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: HashMap<&'static str, Registered>,
}

impl Registry {
    /// Empty.
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

    /// The kinds that have a handler.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.kinds.keys().copied()
    }

    pub(super) fn registered(&self, kind: &str) -> Option<&Registered> {
        self.kinds.get(kind)
    }

    fn add<C: Command>(mut self, settle: Arc<dyn Settle>) -> Self {
        let registered = Registered { weight: settle.weight(), settler: settle };
        let before = self.kinds.insert(C::KIND, registered);
        assert!(before.is_none(), "{} has two handlers", C::KIND);
        self
    }
}
