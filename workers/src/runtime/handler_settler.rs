//! The settling of one kind by a [`Handler`]: one transaction a batch.

use std::{borrow::Cow, collections::HashMap, collections::HashSet, ops::Range, panic::AssertUnwindSafe, sync::Mutex};

use contracts::{Command, Outcome};
use futures::{FutureExt, future::BoxFuture};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    bisection::bisect,
    consumer::{Context, Interrupted},
    disposition::Disposition,
    failure::Failure,
    handler::{Delivery, Handler, Parent},
    inbox::{self, NewRows, SettledRow},
    raw_event::RawEvent,
};

/// Settles the events of one kind; one fate each, in order.
pub trait Settle: Send + Sync {
    /// Settles a batch.
    fn settle<'a>(
        &'a self,
        context: &'a Context,
        events: &'a [RawEvent],
    ) -> BoxFuture<'a, Result<Vec<Disposition>, Interrupted>>;

    /// How many rows one event of this kind writes, before it is parsed.
    fn weight(&self) -> usize;

    /// Whether the kind writes no operations rows.
    fn is_self_deduplicating(&self) -> bool;
}

/// A handler, as the runtime runs it.
pub struct HandlerSettler<H>(pub H);

impl<H: Handler> Settle for HandlerSettler<H> {
    fn settle<'a>(
        &'a self,
        context: &'a Context,
        events: &'a [RawEvent],
    ) -> BoxFuture<'a, Result<Vec<Disposition>, Interrupted>> {
        async move {
            let Typed { dispositions, positions, deliveries } = type_all::<H::Command>(events);
            let dispositions = Mutex::new(dispositions);
            let note = |position: usize, fate: Disposition| {
                dispositions.lock().expect("no code panics while it holds the dispositions")[position] =
                    Some(disposition);
            };
            let transaction = |range: Range<usize>| async {
                let (positions, deliveries) = (&positions[range.clone()], &deliveries[range]);
                let settled = self.transaction(context, events, positions, deliveries).await?;
                settled.into_iter().zip(positions).for_each(|(disposition, position)| note(*position, fate));
                Ok(())
            };
            let single = |index: usize, failure: Failure| note(positions[index], Disposition::of_failure(&failure));
            bisect(context, deliveries.len(), transaction, single).await?;
            Ok(complete(dispositions.into_inner().expect("no code panics while it holds the dispositions")))
        }
        .boxed()
    }

    fn weight(&self) -> usize {
        H::Command::example().weight()
    }

    fn is_self_deduplicating(&self) -> bool {
        H::SELF_DEDUPLICATING
    }
}

impl<H: Handler> HandlerSettler<H> {
    /// One attempt at a batch: drop the settled, apply the rest, settle, commit.
    async fn transaction(
        &self,
        context: &Context,
        events: &[RawEvent],
        positions: &[usize],
        deliveries: &[Delivery<H::Command>],
    ) -> Result<Vec<Disposition>, Failure> {
        let mut connection = context.database.acquire().await?;
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.id).collect();
        let settled = if H::SELF_DEDUPLICATING { HashMap::new() } else { known(&mut connection, &ids).await? };
        let (fresh, indexes) = fresh(events, positions, deliveries, &settled);
        let origin = |index: &usize| (&events[positions[*index]], settled.get(&deliveries[*index].id));
        let origins: Vec<_> = indexes.iter().map(origin).collect();
        let outcomes = self.apply(context, &mut connection, &fresh, &origins).await?;
        let mut dispositions: Vec<Disposition> = Vec::with_capacity(deliveries.len());
        let mut outcomes = fresh.iter().zip(outcomes).peekable();
        for (delivery, position) in deliveries.iter().zip(positions) {
            let event = &events[*position];
            dispositions.push(match outcomes.next_if(|(next, _)| next.id == delivery.id) {
                Some((_, outcome)) => {
                    let follow_ups = self.follow_ups(context, event, delivery, &outcome);
                    Disposition::Settled {
                        state: outcome.state(),
                        follow_ups,
                        notified: self.0.notifies(&delivery.command),
                    }
                }
                None => self.duplicate(context, event, delivery, settled.get(&delivery.id))?,
            });
        }
        Ok(dispositions)
    }

    /// Applies and settles these, each with the event that it came in and the failed operation that it replays, if any.
    async fn apply(
        &self,
        context: &Context,
        connection: &mut PgConnection,
        fresh: &[Delivery<H::Command>],
        origins: &[(&RawEvent, Option<&SettledRow>)],
    ) -> Result<Vec<Outcome<H::Result, H::Memo>>, Failure> {
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        let started = std::time::Instant::now();
        let mut tx = connection.begin().await?;
        let outcomes = AssertUnwindSafe(self.0.apply(&mut tx, fresh))
            .catch_unwind()
            .await
            .map_err(|panic| Failure::Data(panic_text(&*panic).into()))??;
        if outcomes.len() != fresh.len() {
            let text = format!("{} outcomes for {} events of {}", outcomes.len(), fresh.len(), H::Command::KIND);
            return Err(Failure::Data(text.into()));
        }
        context.stage("apply", started);
        let started = std::time::Instant::now();
        if !H::SELF_DEDUPLICATING {
            let mut rows = NewRows::default();
            for ((delivery, outcome), (event, failed)) in fresh.iter().zip(&outcomes).zip(origins) {
                rows.push(event, delivery, outcome, *failed)?;
            }
            rows.settle(&mut tx).await?;
        }
        context.stage("settle", started);
        #[cfg(feature = "planted-bugs")]
        super::fault_injection::reach(super::fault_injection::Point::BeforeCommit).await;
        let started = std::time::Instant::now();
        tx.commit().await?;
        context.stage("commit", started);
        #[cfg(feature = "planted-bugs")]
        super::fault_injection::reach(super::fault_injection::Point::AfterCommit).await;
        Ok(outcomes)
    }

    fn duplicate(
        &self,
        context: &Context,
        event: &RawEvent,
        delivery: &Delivery<H::Command>,
        row: Option<&SettledRow>,
    ) -> Result<Disposition, Failure> {
        let outcome = committed::<H::Result, H::Memo>(event, row)?;
        let follow_ups = outcome.map(|outcome| self.follow_ups(context, event, delivery, &outcome));
        Ok(Disposition::Duplicate { follow_ups: follow_ups.unwrap_or_default() })
    }

    fn follow_ups(
        &self,
        context: &Context,
        event: &RawEvent,
        delivery: &Delivery<H::Command>,
        outcome: &Outcome<H::Result, H::Memo>,
    ) -> Vec<contracts::NewEvent> {
        let parent = Parent { id: event.id, trace: event.trace, source: &context.source };
        self.0.follow_ups(delivery, outcome).iter().map(|follow_up| follow_up.event(&parent)).collect()
    }
}

/// A batch of one kind, parsed: bad ones and repeated ids have their fate already.
pub(super) struct Typed<C> {
    pub dispositions: Vec<Option<Disposition>>,
    /// Where in the batch each delivery stands.
    pub positions: Vec<usize>,
    pub deliveries: Vec<Delivery<C>>,
}

/// Parses a batch; of several events with one id the first in order wins.
pub(super) fn type_all<C: Command>(events: &[RawEvent]) -> Typed<C> {
    let mut typed = Typed { dispositions: Vec::new(), positions: Vec::new(), deliveries: Vec::new() };
    let mut seen = HashSet::with_capacity(events.len());
    for (position, event) in events.iter().enumerate() {
        let fate = if seen.insert(event.id) {
            match event.typed::<C>() {
                Ok(delivery) => {
                    typed.positions.push(position);
                    typed.deliveries.push(delivery);
                    None
                }
                Err(failure) => Some(Disposition::of_failure(&failure)),
            }
        } else {
            // Its follow-ups go out with the first one's.
            Some(Disposition::Duplicate { follow_ups: Vec::new() })
        };
        typed.dispositions.push(disposition);
    }
    typed
}

/// Every event has a fate now.
pub(super) fn complete(dispositions: Vec<Option<Disposition>>) -> Vec<Disposition> {
    dispositions.into_iter().map(|disposition| fate.expect("bisection gives every event a fate")).collect()
}

/// The settled ones among these ids.
pub(super) async fn known(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, SettledRow>, Failure> {
    #[cfg(feature = "planted-bugs")]
    if super::fault_injection::inbox_off() {
        return Ok(HashMap::new());
    }
    Ok(inbox::settled(connection, ids).await?)
}

/// Whether an event is still to be settled: never seen, or given up and now replayed by an operator.
pub(super) fn is_fresh(event: &RawEvent, row: Option<&SettledRow>) -> bool {
    row.is_none_or(|row| row.state == "failed" && event.replay > 0)
}

fn fresh<'a, C: Clone>(
    events: &[RawEvent],
    positions: &[usize],
    deliveries: &'a [Delivery<C>],
    settled: &HashMap<Uuid, SettledRow>,
) -> (Cow<'a, [Delivery<C>]>, Vec<usize>) {
    if settled.is_empty() {
        return (Cow::Borrowed(deliveries), (0..deliveries.len()).collect());
    }
    let indexes: Vec<usize> = (0..deliveries.len())
        .filter(|index| is_fresh(&events[positions[*index]], settled.get(&deliveries[*index].id)))
        .collect();
    (indexes.iter().map(|index| deliveries[*index].clone()).collect(), indexes)
}

/// The outcome that was committed for this event; none where the row is of another payload under the same id, or given
/// up: what follows is then not this event's to say.
pub(super) fn committed<R, M>(event: &RawEvent, row: Option<&SettledRow>) -> Result<Option<Outcome<R, M>>, Failure>
where
    R: serde::de::DeserializeOwned,
    M: serde::de::DeserializeOwned + Default,
{
    row.filter(|row| row.state != "failed" && row.fingerprint == event.fingerprint.as_bytes())
        .map(|row| row.decided().map_err(Failure::poison))
        .transpose()
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the handler panicked: {}", said.unwrap_or_else(|| "without a text".into()))
}
