//! `workers run`: the named pools in one process, until SIGTERM.

use std::{collections::BTreeSet, str::FromStr};

use anyhow::ensure;
use contracts::{Partitions, Queue, WorkQueue};

use crate::{
    config::WorkerSettings,
    process::{self, WorkerProcess},
    registry,
};

/// The pools that have a program of their own: the queue and the program.
const OTHER_PROGRAMS: [(Queue, &str); 1] = [(Queue::Documents, "renderer")];

/// The pools, and the number of consumers.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Pools of this process: registrations, payments, invoicing, notifications, email, dead-letters, clock; or `all` of
    /// these. Of a queue that is split, `payments` is all partitions, and `payments.0` one of them. `documents` is served
    /// by the program `renderer`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub pools: Vec<PoolName>,

    /// Consumers a pool; overrides `runtime.consumers`. A partition has one.
    #[arg(long)]
    pub consumers: Option<u32>,
}

/// One pool, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PoolName {
    /// Every pool but those that have a program of their own.
    All,
    /// A work queue, or a partition of one.
    Queue(WorkQueue),
    /// The drain of the dead letters.
    DeadLetters,
    /// The clock: what becomes due with time.
    Clock,
}

impl FromStr for PoolName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "all" => Ok(PoolName::All),
            "dead-letters" => Ok(PoolName::DeadLetters),
            "clock" => Ok(PoolName::Clock),
            _ => {
                let queue = WorkQueue::from_name(name).ok_or_else(|| {
                    let names: Vec<_> = served().map(Queue::name).collect();
                    format!("there is no pool `{name}`; there are {}, dead-letters, clock, all", names.join(", "))
                })?;
                match OTHER_PROGRAMS.iter().find(|(other, _)| *other == queue.queue()) {
                    Some((_, program)) => Err(format!(
                        "the pool `{name}` is served by the program `{program}`: start `{program} run` with the same \
                         settings, and leave `{name}` out of --pools"
                    )),
                    None => Ok(PoolName::Queue(queue)),
                }
            }
        }
    }
}

/// Runs the pools.
///
/// # Errors
/// Settings that cannot be used, or a metrics port that is taken. A broker or database that is away is waited for.
pub async fn run(args: RunArgs, settings: WorkerSettings) -> anyhow::Result<()> {
    let has = |pool: PoolName| args.pools.contains(&PoolName::All) || args.pools.contains(&pool);
    if args.pools.contains(&PoolName::All) {
        for (queue, program) in OTHER_PROGRAMS {
            tracing::info!("the pool `{}` is not served here: start `{program} run` for it", queue.name());
        }
    }
    let process = WorkerProcess {
        name: format!("workers {}", args_text(&args.pools)),
        queues: queues(&args.pools, settings.partitions)?,
        dead_letters: has(PoolName::DeadLetters),
        clock: has(PoolName::Clock),
        consumers: args.consumers,
        registry: registry::registry,
    };
    process::run(process, settings).await
}

/// The queues that this program can serve.
fn served() -> impl Iterator<Item = Queue> {
    Queue::ALL.into_iter().filter(|queue| OTHER_PROGRAMS.iter().all(|(other, _)| other != queue))
}

/// Returns the queues of these pools: of one that is split, all partitions, or those that are named.
fn queues(pools: &[PoolName], partitions: Partitions) -> anyhow::Result<Vec<WorkQueue>> {
    let mut queues = BTreeSet::new();
    for pool in pools {
        match pool {
            PoolName::All => queues.extend(served().flat_map(|queue| partitions.queues(queue))),
            PoolName::Queue(named) if named.is_partition() => {
                let there = partitions.queues(named.queue());
                ensure!(there.contains(named), "--pools: {}", no_partition(*named, partitions));
                queues.insert(*named);
            }
            PoolName::Queue(whole) => queues.extend(partitions.queues(whole.queue())),
            PoolName::DeadLetters | PoolName::Clock => {}
        }
    }
    Ok(queues.into_iter().collect())
}

fn no_partition(named: WorkQueue, partitions: Partitions) -> String {
    let queue = named.queue();
    match partitions.queues(queue).as_slice() {
        [first, .., last] => {
            format!("there is no partition `{named}`; there are {first} to {last}, as partitions.{} says", queue.name())
        }
        _ => format!("there is no partition `{named}`, as `{0}` is whole; partitions.{0} splits it", queue.name()),
    }
}

fn args_text(pools: &[PoolName]) -> String {
    let names: Vec<_> = pools
        .iter()
        .map(|pool| match pool {
            PoolName::All => "all".to_owned(),
            PoolName::Queue(queue) => queue.to_string(),
            PoolName::DeadLetters => "dead-letters".to_owned(),
            PoolName::Clock => "clock".to_owned(),
        })
        .collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pools: &str, payments: u16) -> Result<Vec<String>, String> {
        let pools: Vec<PoolName> = pools.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let partitions = Partitions::of_payments(payments).expect("not too many");
        let queues = queues(&pools, partitions).map_err(|error| error.to_string())?;
        Ok(queues.iter().map(WorkQueue::to_string).collect())
    }

    #[test]
    fn a_pool_is_its_queue_or_all_partitions_of_it() {
        let expect = |pools, payments, expected: &[&str]| assert_eq!(names(pools, payments).expect(pools), expected);
        expect("payments,clock", 1, &["payments"]);
        expect("payments,email", 3, &["payments.0", "payments.1", "payments.2", "email"]);
        expect("payments.2,payments.0,payments.2", 3, &["payments.0", "payments.2"]);
        expect("all", 2, &["registrations", "payments.0", "payments.1", "invoicing", "notifications", "email"]);
    }

    #[test]
    fn a_partition_that_is_not_there_is_refused_with_those_that_are() {
        let refused = |pools, payments| names(pools, payments).expect_err(pools);
        assert!(refused("payments.3", 3).contains("payments.0 to payments.2"), "{}", refused("payments.3", 3));
        assert!(refused("payments.0", 1).contains("partitions.payments"), "{}", refused("payments.0", 1));
        assert!(refused("email.0", 3).contains("there is no pool `email.0`"), "{}", refused("email.0", 3));
    }

    #[test]
    fn a_pool_with_a_program_of_its_own_is_refused_with_that_program() {
        let error = names("payments,documents", 1).expect_err("served by the renderer");
        assert!(error.contains("start `renderer run`"), "{error}");
    }
}
