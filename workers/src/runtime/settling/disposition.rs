//! The disposition of one event in this process: the vocabulary between settling and acknowledging.

use std::any::Any;

use contracts::{envelope::NewEvent, messages::create_notification::NotificationTarget};

use crate::runtime::failure::{Failure, chain};

/// The result of settling one event, by what has to be published before it may be acked.
#[derive(Debug)]
pub enum Disposition {
    /// Settled now.
    Settled {
        /// `succeeded` or `rejected`.
        state: &'static str,
        follow_ups: Vec<NewEvent>,
        /// The user or role whose inbox in the application has a new line.
        notified: Option<NotificationTarget>,
    },
    /// Settled before; its follow-ups are published again, in case they were not the first time.
    Duplicate { follow_ups: Vec<NewEvent> },
    /// Being settled by another worker: look again soon. No failure, so it neither counts as an attempt nor climbs the
    /// retry ladder.
    Later,
    /// Failed: again later, through the retry ladder.
    Retry { class: &'static str, text: String },
    /// Failed for good: to the dead letters.
    Poison { class: &'static str, text: String },
}

impl Disposition {
    /// Returns the disposition of a single event that failed.
    pub fn of_failure(failure: &Failure) -> Self {
        let (class, text) = (failure.class(), chain(failure));
        match failure {
            Failure::Poison(_) => Disposition::Poison { class, text },
            _ => Disposition::Retry { class, text },
        }
    }

    /// Returns the label `outcome` of metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Disposition::Settled { state, .. } => state,
            Disposition::Duplicate { .. } => "duplicate",
            Disposition::Later => "later",
            Disposition::Retry { .. } => "retry",
            Disposition::Poison { .. } => "poison",
        }
    }
}

/// Returns the message of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the handler panicked: {}", message.unwrap_or_else(|| "without a text".into()))
}
