//! The settling of one kind by an [`Effect`]: claim in one transaction, do concurrently, mark in another.

use std::{collections::HashMap, ops::Range, panic::AssertUnwindSafe, sync::Mutex};

use contracts::{Command, Outcome};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use uuid::Uuid;

use super::{
    bisection::bisect,
    consumer::{Context, Interrupted},
    disposition::Disposition,
    failure::Failure,
    handler::{Claim, Delivery, Effect, Parent},
    handler_settler::{Settle, Typed, committed, complete, is_fresh, known, panic_text, type_all},
    inbox::{NewRows, SettledRow},
    raw_event::RawEvent,
};

/// An effect, as the runtime runs it.
pub struct EffectSettler<E>(pub E);

/// A delivery that was claimed and done, or failed.
type Performed<'a, E> =
    (usize, &'a Delivery<<E as Effect>::Command>, <E as Effect>::Work, Result<<E as Effect>::Done, Failure>);

impl<E: Effect> Settle for EffectSettler<E> {
    fn settle<'a>(
        &'a self,
        context: &'a Context,
        events: &'a [RawEvent],
    ) -> BoxFuture<'a, Result<Vec<Disposition>, Interrupted>> {
        async move {
            let Typed { dispositions, positions, deliveries } = type_all::<E::Command>(events);
            let dispositions = Mutex::new(dispositions);
            let note = |position: usize, fate: Disposition| {
                dispositions.lock().expect("no code panics while it holds the dispositions")[position] =
                    Some(disposition);
            };

            let claimed = Mutex::new(Vec::new());
            let claim = |range: Range<usize>| async {
                let claims = self.claim(context, events, &positions[range.clone()], &deliveries[range.clone()]).await?;
                let mut claimed = claimed.lock().expect("no code panics while it holds the claims");
                for (index, claim) in range.zip(claims) {
                    match claim {
                        Claimed::Do(work) => claimed.push((index, work)),
                        Claimed::Disposition(disposition) => note(positions[index], fate),
                    }
                }
                Ok(())
            };
            let single = |index: usize, failure: Failure| note(positions[index], Disposition::of_failure(&failure));
            bisect(context, deliveries.len(), claim, single).await?;

            let claimed = claimed.into_inner().expect("no code panics while it holds the claims");
            let started = std::time::Instant::now();
            let performed = self.perform(&deliveries, claimed).await;
            context.stage("perform", started);

            let mark = |range: Range<usize>| async {
                let marked = self.mark(context, events, &positions, &performed[range]).await?;
                marked.into_iter().for_each(|(position, fate)| note(position, fate));
                Ok(())
            };
            let single = |index: usize, failure: Failure| {
                note(positions[performed[index].0], Disposition::of_failure(&failure));
            };
            bisect(context, performed.len(), mark, single).await?;
            Ok(complete(dispositions.into_inner().expect("no code panics while it holds the dispositions")))
        }
        .boxed()
    }

    fn weight(&self) -> usize {
        E::Command::example().weight()
    }

    fn is_self_deduplicating(&self) -> bool {
        E::SELF_DEDUPLICATING
    }
}

enum Claimed<W> {
    Do(W),
    Disposition(Disposition),
}

impl<E: Effect> EffectSettler<E> {
    async fn claim(
        &self,
        context: &Context,
        events: &[RawEvent],
        positions: &[usize],
        deliveries: &[Delivery<E::Command>],
    ) -> Result<Vec<Claimed<E::Work>>, Failure> {
        let mut tx = context.database.begin().await?;
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.id).collect();
        let settled = if E::SELF_DEDUPLICATING { HashMap::new() } else { known(&mut tx, &ids).await? };
        let fresh: Vec<usize> = (0..deliveries.len())
            .filter(|index| is_fresh(&events[positions[*index]], settled.get(&deliveries[*index].id)))
            .collect();
        let unsettled: Vec<_> = fresh.iter().map(|index| deliveries[*index].clone()).collect();
        let claims = if unsettled.is_empty() { Vec::new() } else { self.0.claim(&mut tx, &unsettled).await? };
        if claims.len() != unsettled.len() {
            return Err(Failure::Data(format!("{} claims for {} events", claims.len(), unsettled.len()).into()));
        }
        tx.commit().await?;
        let mut claims = fresh.into_iter().zip(claims).peekable();
        (0..deliveries.len())
            .map(|index| match claims.next_if(|(next, _)| *next == index).map(|(_, claim)| claim) {
                Some(Claim::Do(work)) => Ok(Claimed::Do(work)),
                Some(Claim::Done) => Ok(Claimed::Disposition(Disposition::Duplicate { follow_ups: Vec::new() })),
                Some(Claim::Later) => Ok(Claimed::Disposition(Disposition::Later)),
                None => {
                    let (event, delivery) = (&events[positions[index]], &deliveries[index]);
                    self.duplicate(context, event, delivery, settled.get(&delivery.id)).map(Claimed::Disposition)
                }
            })
            .collect()
    }

    async fn perform<'a>(
        &self,
        deliveries: &'a [Delivery<E::Command>],
        claimed: Vec<(usize, E::Work)>,
    ) -> Vec<Performed<'a, E>> {
        stream::iter(claimed)
            .map(|(index, work)| async move {
                let delivery = &deliveries[index];
                let done = AssertUnwindSafe(self.0.perform(delivery, &work))
                    .catch_unwind()
                    .await
                    .unwrap_or_else(|panic| Err(Failure::retry(panic_text(&*panic))));
                (index, delivery, work, done)
            })
            .buffered(E::CONCURRENCY)
            .collect()
            .await
    }

    async fn mark(
        &self,
        context: &Context,
        events: &[RawEvent],
        positions: &[usize],
        performed: &[Performed<'_, E>],
    ) -> Result<Vec<(usize, Disposition)>, Failure> {
        let mut tx = context.database.begin().await?;
        let views: Vec<_> = performed.iter().map(|(_, delivery, work, done)| (*delivery, work, done)).collect();
        let outcomes = self.0.mark(&mut tx, &views).await?;
        let successes = performed.iter().filter(|(_, _, _, done)| done.is_ok()).count();
        if outcomes.len() != successes {
            return Err(Failure::Data(format!("{} outcomes for {successes} effects", outcomes.len()).into()));
        }
        // Another worker may have done the same meanwhile: its row holds, and the follow-ups are the same.
        let ids: Vec<Uuid> = performed.iter().map(|(_, delivery, ..)| delivery.id).collect();
        let settled = if E::SELF_DEDUPLICATING { HashMap::new() } else { known(&mut tx, &ids).await? };
        let mut outcomes = outcomes.into_iter();
        let mut rows = NewRows::default();
        let mut dispositions = Vec::with_capacity(performed.len());
        for (index, delivery, _, done) in performed {
            let position = positions[*index];
            let fate = match done {
                Err(failure) => Disposition::of_failure(failure),
                Ok(_) => {
                    let outcome = outcomes.next().expect("as many outcomes as successes");
                    let row = settled.get(&delivery.id);
                    if !E::SELF_DEDUPLICATING && is_fresh(&events[position], row) {
                        rows.push(&events[position], delivery, &outcome, row)?;
                    }
                    let follow_ups = self.follow_ups(context, &events[position], delivery, &outcome);
                    Disposition::Settled { state: outcome.state(), follow_ups, notified: None }
                }
            };
            dispositions.push((position, fate));
        }
        rows.settle(&mut tx).await?;
        tx.commit().await?;
        Ok(dispositions)
    }

    fn duplicate(
        &self,
        context: &Context,
        event: &RawEvent,
        delivery: &Delivery<E::Command>,
        row: Option<&SettledRow>,
    ) -> Result<Disposition, Failure> {
        let outcome = committed::<E::Result, E::Memo>(event, row)?;
        let follow_ups = outcome.map(|outcome| self.follow_ups(context, event, delivery, &outcome));
        Ok(Disposition::Duplicate { follow_ups: follow_ups.unwrap_or_default() })
    }

    fn follow_ups(
        &self,
        context: &Context,
        event: &RawEvent,
        delivery: &Delivery<E::Command>,
        outcome: &Outcome<E::Result, E::Memo>,
    ) -> Vec<contracts::NewEvent> {
        let parent = Parent { id: event.id, trace: event.trace, source: &context.source };
        self.0.follow_ups(delivery, outcome).iter().map(|follow_up| follow_up.event(&parent)).collect()
    }
}
