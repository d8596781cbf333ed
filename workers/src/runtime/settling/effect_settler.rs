//! The settling of one kind by an [`Effect`]: claim in one transaction, perform concurrently, mark in another.

use std::{collections::HashMap, ops::Range, panic::AssertUnwindSafe, time::Instant};

use contracts::Command;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    bisection::bisect,
    disposition::{Disposition, panic_text},
    inbox::{self, SettledRow},
    item::{Item, Items, fill},
    operations::NewRows,
    raw_event::RawEvent,
    settler::KindSettler,
};
use crate::runtime::{
    failure::Failure,
    handler::{Claim, Effect, Outcomes},
    shared::{Interrupted, PoolContext},
};

/// An effect, as the runtime runs it.
pub struct EffectSettler<E>(pub E);

/// The result of claiming one item.
enum Claimed<W> {
    Work(W),
    Decided(Disposition),
}

/// An item that was claimed and performed, or failed.
struct Performed<E: Effect> {
    /// The item's index.
    index: usize,
    work: E::Work,
    done: Result<E::Done, Failure>,
}

impl<E: Effect> KindSettler for EffectSettler<E> {
    fn settle<'a>(
        &'a self,
        pool: &'a PoolContext,
        events: &'a [RawEvent],
    ) -> BoxFuture<'a, Result<Vec<Disposition>, Interrupted>> {
        async move {
            let items = Items::parse(events);
            let claim = |range| self.claim(pool, &items, range);
            let decide = |failure: &Failure| Claimed::Decided(Disposition::of_failure(failure));
            let claims = bisect(pool, items.len(), claim, decide).await?;
            let (decided, work) = split(claims);
            let performed = self.perform(pool, &items, work).await;
            let mark = |range: Range<usize>| self.mark(pool, &items, &performed[range]);
            let marked = bisect(pool, performed.len(), mark, Disposition::of_failure).await?;
            Ok(items.complete(fill(decided, marked)))
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

/// The dispositions of those items that are decided, and the work of the others, each with its index.
fn split<W>(claims: Vec<Claimed<W>>) -> (Vec<Option<Disposition>>, Vec<(usize, W)>) {
    let mut work = Vec::new();
    let decided = |(index, claim)| match claim {
        Claimed::Decided(disposition) => Some(disposition),
        Claimed::Work(claimed) => {
            work.push((index, claimed));
            None
        }
    };
    (claims.into_iter().enumerate().map(decided).collect(), work)
}

impl<E: Effect> EffectSettler<E> {
    /// The first transaction: look up the inbox, claim the fresh items.
    async fn claim(
        &self,
        pool: &PoolContext,
        all: &Items<'_, E::Command>,
        range: Range<usize>,
    ) -> Result<Vec<Claimed<E::Work>>, Failure> {
        let mut tx = pool.shared.database.begin().await?;
        let rows = self.look_up(&mut tx, &all.ids(range.clone())).await?;
        let fresh = all.fresh(range.clone(), &rows);
        let claims = if fresh.is_empty() { Vec::new() } else { self.0.claim(&mut tx, &fresh).await? };
        if claims.len() != fresh.len() {
            return Err(Failure::Data(format!("{} claims for {} events", claims.len(), fresh.len()).into()));
        }
        tx.commit().await?;
        let mut claims = claims.into_iter();
        let claimed = |item: Item<'_, E::Command>| -> Result<Claimed<E::Work>, Failure> {
            if !item.is_fresh() {
                let duplicate = item.duplicate(&pool.source, |outcome| self.0.follow_ups(item.delivery, outcome))?;
                return Ok(Claimed::Decided(duplicate));
            }
            Ok(match claims.next().expect("every fresh item has a claim") {
                Claim::Do(work) => Claimed::Work(work),
                Claim::Done => Claimed::Decided(Disposition::Duplicate { follow_ups: Vec::new() }),
                Claim::Later => Claimed::Decided(Disposition::Later),
            })
        };
        all.range(range, &rows).into_iter().map(claimed).collect()
    }

    /// Performs what was claimed, outside of any transaction; a panic is a failure of its item.
    async fn perform(
        &self,
        pool: &PoolContext,
        items: &Items<'_, E::Command>,
        work: Vec<(usize, E::Work)>,
    ) -> Vec<Performed<E>> {
        let started = Instant::now();
        let performed = stream::iter(work)
            .map(|(index, work)| async move {
                let done = AssertUnwindSafe(self.0.perform(items.delivery(index), &work))
                    .catch_unwind()
                    .await
                    .unwrap_or_else(|panic| Err(Failure::retry(panic_text(&*panic))));
                Performed { index, work, done }
            })
            .buffered(E::CONCURRENCY)
            .collect()
            .await;
        pool.stage("perform", started);
        performed
    }

    /// The second transaction: record what was performed, settle the successes.
    async fn mark(
        &self,
        pool: &PoolContext,
        items: &Items<'_, E::Command>,
        performed: &[Performed<E>],
    ) -> Result<Vec<Disposition>, Failure> {
        let mut tx = pool.shared.database.begin().await?;
        let mut outcomes = self.outcomes(&mut tx, items, performed).await?.into_iter();
        // Another worker may have performed the same meanwhile: its row holds, and the follow-ups are the same.
        let ids: Vec<Uuid> = performed.iter().map(|effect| items.delivery(effect.index).id).collect();
        let rows = self.look_up(&mut tx, &ids).await?;
        let mut new = NewRows::default();
        let mut dispositions = Vec::with_capacity(performed.len());
        for effect in performed {
            if let Err(failure) = &effect.done {
                dispositions.push(Disposition::of_failure(failure));
                continue;
            }
            let item = items.item(effect.index, &rows);
            let outcome = outcomes.next().expect("every success has an outcome");
            if !E::SELF_DEDUPLICATING && item.is_fresh() {
                new.push(&item, &outcome)?;
            }
            let follow_ups = self.0.follow_ups(item.delivery, &outcome);
            dispositions.push(item.settled(&pool.source, outcome.state(), &follow_ups, None));
        }
        new.settle(&mut tx).await?;
        tx.commit().await?;
        Ok(dispositions)
    }

    /// Calls the effect's `mark`; returns one outcome for each success.
    async fn outcomes(
        &self,
        tx: &mut PgConnection,
        items: &Items<'_, E::Command>,
        performed: &[Performed<E>],
    ) -> Outcomes<E::Result, E::Memo> {
        let views: Vec<_> =
            performed.iter().map(|effect| (items.delivery(effect.index), &effect.work, &effect.done)).collect();
        let outcomes = self.0.mark(tx, &views).await?;
        let successes = performed.iter().filter(|effect| effect.done.is_ok()).count();
        if outcomes.len() != successes {
            return Err(Failure::Data(format!("{} outcomes for {successes} effects", outcomes.len()).into()));
        }
        Ok(outcomes)
    }

    /// The rows of these ids in the inbox; none where the kind does not use it.
    async fn look_up(&self, tx: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, SettledRow>, Failure> {
        if E::SELF_DEDUPLICATING {
            return Ok(HashMap::new());
        }
        inbox::look_up(tx, ids).await
    }
}
