//! The shape of a scenario that posts one kind of command, and what the scenarios share: their stock of unused items and
//! the counts that all of them check.

use contracts::Queue;
use uuid::Uuid;

use crate::{args::Args, record::Check, request::Requests, services::Services, settled};

/// A scenario that posts one kind of command.
pub(crate) trait Scenario {
    /// Name in tables and file names.
    fn name(&self) -> &'static str;

    /// The pool that settles its commands.
    fn pool(&self) -> &'static str {
        Queue::Payments.name()
    }

    /// Numbers of requests of the warm-up and of the measurement; none where the command line's seconds decide.
    fn requests(&self) -> Option<(usize, usize)> {
        None
    }

    /// Overrides the options of the command line that do not fit this scenario.
    fn adapt(&self, args: Args) -> Args {
        args
    }

    /// Inserts the rows that `count` commands need and renders these commands, none of which was sent before. Their access
    /// tokens expire [`contracts::access_token::LIFETIME_SECS`] after this call.
    async fn make(&mut self, services: &Services, count: usize) -> anyhow::Result<Requests>;

    /// Marks the first `count` commands of the last [`Self::make`] as sent.
    fn sent(&mut self, count: usize);

    /// Number of effects of these operations that are still missing; called when the queues are empty.
    async fn pending(&self, services: &Services, operations: &[Uuid]) -> anyhow::Result<i64>;

    /// Rules that must hold once nothing is pending. `mails` is the number of e-mail events with distinct ids.
    async fn check(&self, services: &Services, operations: &[Uuid], mails: usize) -> anyhow::Result<Vec<Check>>;

    /// Commit time of the last effect other than the operations' rows, microseconds since 1970.
    async fn last_effect_us(&self, services: &Services, operations: &[Uuid]) -> anyhow::Result<i64>;
}

/// Items from which commands are made, in order; each is used once.
#[derive(Debug)]
pub(crate) struct Stock<T> {
    pub items: Vec<T>,
    pub used: usize,
}

impl<T> Default for Stock<T> {
    fn default() -> Self {
        Self { items: Vec::new(), used: 0 }
    }
}

impl<T> Stock<T> {
    /// Number of items to add so that `count` are unused.
    pub(crate) fn missing(&self, count: usize) -> usize {
        count.saturating_sub(self.items.len() - self.used)
    }

    /// The next `count` unused items.
    pub(crate) fn next(&self, count: usize) -> &[T] {
        &self.items[self.used..self.used + count]
    }
}

/// Number of these operations that are not settled yet.
pub(crate) async fn unsettled(services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM unnest($1::uuid[]) AS wanted (id) JOIN operations USING (id)";
    Ok(i64::try_from(operations.len())? - settled::count(&services.database, sql, operations).await?)
}

/// The rule that no event became a dead letter.
pub(crate) async fn dead_letters(services: &Services) -> anyhow::Result<Check> {
    let found = sqlx::query_scalar("SELECT count(*) FROM dead_letters").fetch_one(&services.database).await?;
    Ok(Check::new("no event is a dead letter", 0, found))
}
