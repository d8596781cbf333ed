//! The scenarios, a file each: what is seeded, what is posted, and what must have come of it.

mod approvals;
mod backlog;
mod crowd;
mod fairness;
mod growth;
mod mail;
mod payments;
mod pdf;
mod plans;
mod play;
mod registrations;
mod scale_out;
mod stampede;
mod waiters;

use contracts::Queue;
use serde::Serialize;
use uuid::Uuid;

pub use approvals::Approvals;
pub use backlog::{Backlog, measure as work_off};
pub use mail::Mail;
pub use payments::Payments;
pub use pdf::Pdf;
pub use play::{help, play};
pub use registrations::{Registrants, Registrations};

use crate::{args::Args, request::Requests, settled, world::World};

/// One kind of command under load.
pub trait Scenario {
    /// As tables and files call it.
    fn name(&self) -> &'static str;

    /// The pool that settles its commands.
    fn pool(&self) -> &'static str {
        Queue::Payments.name()
    }

    /// The requests of the warm-up and of the measurement, where their number is given, and not how long they last.
    fn requests(&self) -> Option<(usize, usize)> {
        None
    }

    /// What it asks for other than the command line does.
    fn adapt(&self, args: Args) -> Args {
        args
    }

    /// Renders this many commands that were never sent, seeding what they need. Tokens hold from now on.
    async fn make(&mut self, world: &World, count: usize) -> anyhow::Result<Requests>;

    /// Takes note that the first so many of what was made last have been sent.
    fn sent(&mut self, count: usize);

    /// How many effects of these operations are still to come; asked when the queues are empty.
    async fn pending(&self, world: &World, operations: &[Uuid]) -> anyhow::Result<i64>;

    /// What must hold once nothing is pending. `mails` are the e-mail events with ids of their own.
    async fn check(&self, world: &World, operations: &[Uuid], mails: usize) -> anyhow::Result<Vec<Check>>;

    /// When the last effect beyond the operations themselves was committed, microseconds since 1970.
    async fn last_effect_us(&self, world: &World, operations: &[Uuid]) -> anyhow::Result<i64>;
}

/// A rule and the figures that keep or break it.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// In words.
    pub rule: String,
    /// What should be.
    pub wanted: i64,
    /// What is.
    pub found: i64,
}

impl Check {
    /// A rule.
    pub fn new(rule: &str, wanted: i64, found: i64) -> Self {
        Self { rule: rule.to_owned(), wanted, found }
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.wanted == self.found
    }
}

/// What commands are made from, in order; each item is used once.
#[derive(Debug)]
struct Stock<T> {
    items: Vec<T>,
    used: usize,
}

impl<T> Default for Stock<T> {
    fn default() -> Self {
        Self { items: Vec::new(), used: 0 }
    }
}

impl<T> Stock<T> {
    /// How many more are needed, so that `count` are left.
    fn missing(&self, count: usize) -> usize {
        count.saturating_sub(self.items.len() - self.used)
    }

    fn next(&self, count: usize) -> &[T] {
        &self.items[self.used..self.used + count]
    }
}

/// Operations that are not settled yet.
async fn unsettled(world: &World, operations: &[Uuid]) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM unnest($1::uuid[]) AS asked (id) JOIN operations USING (id)";
    Ok(i64::try_from(operations.len())? - settled::number(&world.database, sql, operations).await?)
}

async fn dead_letters(world: &World) -> anyhow::Result<Check> {
    let found = sqlx::query_scalar("SELECT count(*) FROM dead_letters").fetch_one(&world.database).await?;
    Ok(Check::new("nothing is a dead letter", 0, found))
}
