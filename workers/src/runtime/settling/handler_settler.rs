//! The settling of one kind by a [`Handler`]: one transaction for all deliveries.

use std::{collections::HashMap, ops::Range, panic::AssertUnwindSafe, time::Instant};

use contracts::{Command, Outcome};
use futures::{FutureExt, future::BoxFuture};
use sqlx::{Connection, PgConnection};

use super::{
    bisection::bisect,
    disposition::{Disposition, panic_text},
    inbox,
    item::{Item, Items},
    operations::NewRows,
    raw_event::RawEvent,
    settler::KindSettler,
};
use crate::{
    fault_injection::{self, Point},
    runtime::{
        failure::Failure,
        handler::{Delivery, Handler, Outcomes},
        shared::{Interrupted, PoolContext},
    },
};

/// A handler, as the runtime runs it.
pub struct HandlerSettler<H>(pub H);

impl<H: Handler> KindSettler for HandlerSettler<H> {
    fn settle<'a>(
        &'a self,
        pool: &'a PoolContext,
        events: &'a [RawEvent],
    ) -> BoxFuture<'a, Result<Vec<Disposition>, Interrupted>> {
        async move {
            let items = Items::parse(events);
            let attempt = |range| self.attempt(pool, &items, range);
            let settled = bisect(pool, items.len(), attempt, Disposition::of_failure).await?;
            Ok(items.complete(settled))
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
    /// One attempt at a range of items: look them up in the inbox, settle the fresh ones; returns a disposition each.
    async fn attempt(
        &self,
        pool: &PoolContext,
        all: &Items<'_, H::Command>,
        range: Range<usize>,
    ) -> Result<Vec<Disposition>, Failure> {
        let mut connection = pool.shared.database.acquire().await?;
        let rows = if H::SELF_DEDUPLICATING {
            HashMap::new()
        } else {
            inbox::look_up(&mut connection, &all.ids(range.clone())).await?
        };
        let fresh = all.fresh(range.clone(), &rows);
        let items = all.range(range, &rows);
        let outcomes = self.settle_fresh(pool, &mut connection, &fresh, &items).await?;
        self.dispositions(pool, &items, &outcomes)
    }

    /// One transaction: apply, settle, commit. `fresh` are the deliveries of those `items` that are fresh.
    async fn settle_fresh(
        &self,
        pool: &PoolContext,
        connection: &mut PgConnection,
        fresh: &[Delivery<H::Command>],
        items: &[Item<'_, H::Command>],
    ) -> Outcomes<H::Result, H::Memo> {
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let mut tx = connection.begin().await?;
        let outcomes = self.apply(&mut tx, fresh).await?;
        pool.stage("apply", started);
        let started = Instant::now();
        self.write_operations(&mut tx, items, &outcomes).await?;
        pool.stage("settle", started);
        fault_injection::reach(Point::BeforeCommit).await;
        let started = Instant::now();
        tx.commit().await?;
        pool.stage("commit", started);
        fault_injection::reach(Point::AfterCommit).await;
        Ok(outcomes)
    }

    /// Calls the handler; a panic is a failure like any other.
    async fn apply(&self, tx: &mut PgConnection, fresh: &[Delivery<H::Command>]) -> Outcomes<H::Result, H::Memo> {
        let outcomes = AssertUnwindSafe(self.0.apply(tx, fresh))
            .catch_unwind()
            .await
            .map_err(|panic| Failure::Data(panic_text(&*panic).into()))??;
        if outcomes.len() != fresh.len() {
            let text = format!("{} outcomes for {} events of {}", outcomes.len(), fresh.len(), H::Command::KIND);
            return Err(Failure::Data(text.into()));
        }
        Ok(outcomes)
    }

    async fn write_operations(
        &self,
        tx: &mut PgConnection,
        items: &[Item<'_, H::Command>],
        outcomes: &[Outcome<H::Result, H::Memo>],
    ) -> Result<(), Failure> {
        if H::SELF_DEDUPLICATING {
            return Ok(());
        }
        let mut rows = NewRows::default();
        for (item, outcome) in items.iter().filter(|item| item.is_fresh()).zip(outcomes) {
            rows.push(item, outcome)?;
        }
        rows.settle(tx).await
    }

    /// One disposition an item; `outcomes` are those of the fresh ones.
    fn dispositions(
        &self,
        pool: &PoolContext,
        items: &[Item<'_, H::Command>],
        outcomes: &[Outcome<H::Result, H::Memo>],
    ) -> Result<Vec<Disposition>, Failure> {
        let mut outcomes = outcomes.iter();
        let disposition = |item: &Item<'_, H::Command>| {
            if item.is_fresh() {
                let outcome = outcomes.next().expect("every fresh item has an outcome");
                let follow_ups = self.0.follow_ups(item.delivery, outcome);
                let notified = self.0.notifies(&item.delivery.command);
                Ok(item.settled(&pool.source, outcome.state(), &follow_ups, notified))
            } else {
                item.duplicate(&pool.source, |outcome| self.0.follow_ups(item.delivery, outcome))
            }
        };
        items.iter().map(disposition).collect()
    }
}
