//! Bugs on demand, behind the feature `fault-injection`, to prove that the tests bite. Without the feature there are none.

/// `early_202`: answer before the broker's confirm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    answers_before_the_confirm: bool,
}

impl Faults {
    /// Reads the planted bug from the settings.
    pub fn new(settings: &crate::config::GatewaySettings) -> Self {
        #[cfg(feature = "fault-injection")]
        let answers_before_the_confirm = settings.planted_bug == "early_202";
        #[cfg(not(feature = "fault-injection"))]
        let (answers_before_the_confirm, _) = (false, settings);
        Self { answers_before_the_confirm }
    }

    /// Tells whether a 202 is to precede the confirm; always `false` without the feature.
    #[inline]
    pub const fn answers_before_the_confirm(self) -> bool {
        cfg!(feature = "fault-injection") && self.answers_before_the_confirm
    }
}
