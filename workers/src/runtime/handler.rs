//! What a pool's code has to say, and nothing more: how a batch of one kind is settled, and what follows from it.
//! Handlers know neither AMQP nor acks nor retries; the runtime owns those.

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

/// One event, decoded and valid, as a handler sees it.
#[derive(Clone, Debug)]
pub struct Delivery<C> {
    /// The operation's id.
    pub id: Uuid,
    /// What is asked.
    pub command: C,
    /// Who asked.
    pub principal: Principal,
    /// When the gateway accepted it.
    pub accepted_at: DateTime<Utc>,
    /// The trace it belongs to.
    pub trace: TraceParent,
    /// How often it was tried and put off before.
    pub attempt: u16,
}

/// What `apply` and `mark` answer: the outcomes of a handler or an effect, in the batch's order.
pub type Outcomes<R, M> = Result<Vec<Outcome<R, M>>, Failure>;

/// What `mark` is shown of one effect: the delivery, what was claimed, and what came of it.
pub type PerformedEffect<'a, E> =
    (&'a Delivery<<E as Effect>::Command>, &'a <E as Effect>::Work, &'a Result<<E as Effect>::Done, Failure>);

/// Settles one kind of command, a whole batch at a time, in one transaction.
pub trait Handler: Send + Sync + 'static {
    /// The message.
    type Command: Command;
    /// What the client is told of a success.
    type Result: Serialize + DeserializeOwned + Send + Sync;
    /// What only the follow-ups need.
    type Memo: Serialize + DeserializeOwned + Default + Send + Sync;

    /// Whether the handler's own unique key is its inbox, and no operations row is written. Only for kinds without
    /// follow-ups whose result nobody asks for.
    const SELF_DEDUPLICATING: bool = false;

    /// Settles the batch: set-based statements, never one an event; one outcome each, in the batch's order. Ids in the
    /// batch are distinct and none is settled yet; business keys may repeat, and then the first in order wins.
    ///
    /// # Errors
    /// [`Failure`] rolls the transaction back; its class decides what happens to the batch.
    fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<Self::Command>],
    ) -> impl Future<Output = Outcomes<Self::Result, Self::Memo>> + Send;

    /// What follows: a pure function of the command and its committed outcome, so that a redelivery computes the same.
    fn follow_ups(
        &self,
        _delivery: &Delivery<Self::Command>,
        _outcome: &Outcome<Self::Result, Self::Memo>,
    ) -> Vec<FollowUp> {
        Vec::new()
    }

    /// Who has something new in their inbox in the application, once it has succeeded: they are told live.
    fn notifies(&self, _command: &Self::Command) -> Option<NotificationTarget> {
        None
    }
}

/// What became of one event whose effect leaves the building.
#[derive(Debug)]
pub enum Claim<W> {
    /// Ours to do now.
    Do(W),
    /// Done before; nothing to do but the follow-ups of the stored outcome.
    Done,
    /// Somebody else holds the lease: come back.
    Later,
}

/// Settles commands whose effect leaves the building (SMTP, a file store), at least once: claim (lease), do concurrently,
/// mark. `claim` and `mark` are one transaction each.
pub trait Effect: Sized + Send + Sync + 'static {
    /// The message.
    type Command: Command;
    /// What `perform` needs, read by `claim`.
    type Work: Send + Sync;
    /// What `perform` brings back.
    type Done: Send + Sync;
    /// What the client is told of a success.
    type Result: Serialize + DeserializeOwned + Send + Sync;
    /// What only the follow-ups need.
    type Memo: Serialize + DeserializeOwned + Default + Send + Sync;

    /// As [`Handler::SELF_DEDUPLICATING`].
    const SELF_DEDUPLICATING: bool = false;
    /// How many are done at once, a batch.
    const CONCURRENCY: usize;

    /// Claims the batch, in order; one claim an event.
    ///
    /// # Errors
    /// As [`Handler::apply`].
    fn claim(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<Self::Command>],
    ) -> impl Future<Output = Result<Vec<Claim<Self::Work>>, Failure>> + Send;

    /// Does one; bounded in time by itself.
    ///
    /// # Errors
    /// [`Failure::Retry`] goes through the ladder, [`Failure::Poison`] to the dead letters.
    fn perform(
        &self,
        delivery: &Delivery<Self::Command>,
        work: &Self::Work,
    ) -> impl Future<Output = Result<Self::Done, Failure>> + Send;

    /// Records what was done or failed, in one statement for all; one outcome for each success, in order (failures get
    /// none: the runtime puts them off or parks them after this commit).
    ///
    /// # Errors
    /// As [`Handler::apply`]; the effects are then done again later, recognisably.
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
/// never of an ordinal.
#[derive(Clone, Debug)]
pub struct FollowUp {
    key: String,
    draft: Draft,
}

/// What a follow-up takes over from its parent.
pub(crate) struct Parent<'a> {
    pub id: Uuid,
    pub trace: TraceParent,
    pub source: &'a str,
}

impl FollowUp {
    /// A follow-up under a stable key, unique among its parent's follow-ups of that kind: `"receipt"`, a user id, ….
    pub fn new<C: Command>(key: impl Into<String>, command: C) -> Self {
        Self { key: key.into(), draft: Draft::new(&command) }
    }

    pub(crate) fn event(&self, parent: &Parent<'_>) -> NewEvent {
        let origin = Origin {
            source: parent.source,
            principal: Principal::System,
            accepted_at: Utc::now(),
            trace: parent.trace.child(),
            parent: Some(parent.id),
        };
        self.draft.event(ids::follow_up_id(parent.id, self.draft.kind, &self.key), &origin)
    }
}

/// Matches rows to a batch by operation id: results come back in any order, and not for every event.
pub fn by_operation<T>(rows: impl IntoIterator<Item = (Uuid, T)>) -> HashMap<Uuid, T> {
    rows.into_iter().collect()
}
