//! The interface between the runtime and a pool's code: how deliveries of one kind are settled, and which follow-ups
//! come of them. Handlers know neither AMQP nor acks nor retries; the runtime owns those.

use std::{collections::HashMap, future::Future};

use chrono::{DateTime, Utc};
use contracts::{
    Command, Outcome, Principal, TraceParent,
    envelope::{Draft, NewEvent, Origin},
    ids,
    messages::create_notification::NotificationTarget,
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use uuid::Uuid;

use super::failure::Failure;

/// One event as a handler takes it, decoded and valid.
#[derive(Clone, Debug)]
pub struct Delivery<C> {
    /// The operation's id.
    pub id: Uuid,
    /// The message.
    pub command: C,
    /// The user, visitor or program that sent it.
    pub principal: Principal,
    /// Time at which the gateway accepted it.
    pub accepted_at: DateTime<Utc>,
    /// The trace it belongs to.
    pub trace: TraceParent,
    /// Number of attempts that failed and were retried later.
    pub attempt: u16,
}

/// The outcomes that `apply` and `mark` return, in the order of the deliveries.
pub type Outcomes<R, M> = Result<Vec<Outcome<R, M>>, Failure>;

/// One performed effect, as `mark` takes it: the delivery, the work that was claimed, and the result of performing it.
pub type PerformedEffect<'a, E> =
    (&'a Delivery<<E as Effect>::Command>, &'a <E as Effect>::Work, &'a Result<<E as Effect>::Done, Failure>);

/// Settles one kind of command, many deliveries at a time, in one transaction.
pub trait Handler: Send + Sync + 'static {
    /// The message.
    type Command: Command;
    /// The result that the client gets of a success.
    type Result: Serialize + DeserializeOwned + Send + Sync;
    /// Data that only the follow-ups need; clients never see it.
    type Memo: Serialize + DeserializeOwned + Default + Send + Sync;

    /// True where the handler's own unique key is its inbox, and no operations row is written. Only for kinds that have
    /// no follow-ups and whose result no client reads.
    const SELF_DEDUPLICATING: bool = false;

    /// Settles the deliveries with set-based statements, never one an event; returns one outcome each, in their order.
    /// Their ids are distinct and none is settled yet; business keys may repeat, and then the first in order wins.
    ///
    /// # Errors
    /// [`Failure`] rolls the transaction back; its class decides what happens to the deliveries.
    fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<Self::Command>],
    ) -> impl Future<Output = Outcomes<Self::Result, Self::Memo>> + Send;

    /// Returns the commands that follow: a pure function of the command and its committed outcome, so that a redelivery
    /// computes the same.
    fn follow_ups(
        &self,
        _delivery: &Delivery<Self::Command>,
        _outcome: &Outcome<Self::Result, Self::Memo>,
    ) -> Vec<FollowUp> {
        Vec::new()
    }

    /// Returns the user or role whose inbox in the application has a new line once the command is settled: they are
    /// notified live.
    fn notifies(&self, _command: &Self::Command) -> Option<NotificationTarget> {
        None
    }
}

/// The answer to one attempt to claim an effect.
#[derive(Debug)]
pub enum Claim<W> {
    /// Claimed: to be performed now.
    Do(W),
    /// Performed before: nothing is left to do.
    Done,
    /// Another worker holds the lease: the event is retried soon.
    Later,
}

/// Settles commands whose effect is outside the database (SMTP, a file store), at least once: claim (lease), perform
/// concurrently, mark. `claim` and `mark` are one transaction each.
pub trait Effect: Sized + Send + Sync + 'static {
    /// The message.
    type Command: Command;
    /// Data that `perform` needs, read by `claim`.
    type Work: Send + Sync;
    /// The result of `perform`, for `mark`.
    type Done: Send + Sync;
    /// The result that the client gets of a success.
    type Result: Serialize + DeserializeOwned + Send + Sync;
    /// Data that only the follow-ups need; clients never see it.
    type Memo: Serialize + DeserializeOwned + Default + Send + Sync;

    /// As [`Handler::SELF_DEDUPLICATING`].
    const SELF_DEDUPLICATING: bool = false;
    /// Maximum of effects that one consumer performs at once.
    const CONCURRENCY: usize;

    /// Claims the deliveries; returns one claim each, in their order.
    ///
    /// # Errors
    /// As [`Handler::apply`].
    fn claim(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<Self::Command>],
    ) -> impl Future<Output = Result<Vec<Claim<Self::Work>>, Failure>> + Send;

    /// Performs one effect, within a time limit of its own.
    ///
    /// # Errors
    /// [`Failure::Retry`] goes through the ladder, [`Failure::Poison`] to the dead letters.
    fn perform(
        &self,
        delivery: &Delivery<Self::Command>,
        work: &Self::Work,
    ) -> impl Future<Output = Result<Self::Done, Failure>> + Send;

    /// Records successes and failures, in one statement for all; returns one outcome for each success, in order
    /// (failures get none: the runtime sends them to the retry ladder or the dead letters after this commit).
    ///
    /// # Errors
    /// As [`Handler::apply`]; the effects are then performed again later, and bear the same key as the first time.
    fn mark(
        &self,
        tx: &mut PgConnection,
        performed: &[PerformedEffect<'_, Self>],
    ) -> impl Future<Output = Outcomes<Self::Result, Self::Memo>> + Send;

    /// As [`Handler::follow_ups`].
    fn follow_ups(
        &self,
        _delivery: &Delivery<Self::Command>,
        _outcome: &Outcome<Self::Result, Self::Memo>,
    ) -> Vec<FollowUp> {
        Vec::new()
    }
}

/// A command that follows from another. Its id is UUIDv5 of the parent's id, its kind and a key that the handler names,
/// never an ordinal.
#[derive(Clone, Debug)]
pub struct FollowUp {
    key: String,
    draft: Draft,
}

impl FollowUp {
    /// Returns a follow-up under a stable key, unique among its parent's follow-ups of that kind: `"receipt"`, a user
    /// id, ….
    pub fn new<C: Command>(key: impl Into<String>, command: C) -> Self {
        Self { key: key.into(), draft: Draft::new(&command) }
    }

    /// Returns the event to publish; `source` is its CloudEvents source.
    pub(crate) fn event<C>(&self, parent: &Delivery<C>, source: &str) -> NewEvent {
        let origin = Origin {
            source,
            principal: Principal::System,
            accepted_at: Utc::now(),
            trace: parent.trace.child(),
            parent: Some(parent.id),
        };
        self.draft.event(ids::follow_up_id(parent.id, self.draft.kind, &self.key), &origin)
    }
}

/// Returns rows by operation id: a statement returns them in any order, and not for every delivery.
pub fn by_operation<T>(rows: impl IntoIterator<Item = (Uuid, T)>) -> HashMap<Uuid, T> {
    rows.into_iter().collect()
}
