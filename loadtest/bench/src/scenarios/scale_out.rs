//! Payments on 1, 2 and 4 worker processes, each with all pools but mails and PDFs, on 1 and 2 gateways, and on the
//! largest layout with a partitioned queue. Every rule must hold on many processes as on one. On one machine they
//! share its cores, so that this shows correctness rather than a higher rate.

use anyhow::Context as _;
use contracts::Partitions;

use super::PaymentsScenario;
use crate::{
    args::Args,
    config::{Installation, PARTITIONS},
    record::{Check, Record},
    series,
};

const POOL_MAX: &str = "REGISTRAR__DATABASE__POOL_MAX";
const WORKERS: [usize; 3] = [1, 2, 4];
const GATEWAYS: [u8; 2] = [1, 2];
const FIGURES: [(&str, &str); 3] =
    [("settled, end to end", "/s"), ("accept, p99", "ms"), ("CPU a command, all but the driver", "µs")];
const POOLS: &str = "registrations,payments,invoicing,notifications,dead-letters,clock";

/// Measures each layout.
///
/// # Errors
/// Where a process or a server fails, or effects are missing.
pub(crate) async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let mut all = Vec::new();
    for gateways in GATEWAYS {
        for workers in WORKERS {
            let layout = Args { gateways, workers: vec![POOLS.to_owned(); workers], ..args.clone() };
            let mut records = series::measure(&layout, installation, PaymentsScenario::under_load()).await?;
            for record in &mut records {
                record.scenario = format!("scale-out-{workers}-workers-{gateways}-gateways");
            }
            all.extend(records);
        }
    }
    all.extend(split(args, installation).await?);
    all.push(side_by_side(&all)?);
    Ok(all)
}

/// Measures the largest layout, with as many partitions of `payments` as worker processes. Every process subscribes to
/// every partition; RabbitMQ activates the consumer that subscribed first, and the others stand by.
async fn split(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let [.., gateways] = GATEWAYS;
    let [.., workers] = WORKERS;
    let payments = u16::try_from(workers)?;
    let mut layout = Args { gateways, workers: vec![POOLS.to_owned(); workers], ..args.clone() };
    layout.env.push((PARTITIONS.to_owned(), payments.to_string()));
    // Each process serves all partitions, with one consumer for each.
    layout.workers_env.push((POOL_MAX.to_owned(), payments.to_string()));
    let partitions = Partitions::of_payments(payments).context("a few partitions")?;
    let installation = Installation { partitions, ..installation.clone() };
    let mut records = series::measure(&layout, &installation, PaymentsScenario::under_load()).await?;
    for record in &mut records {
        record.scenario = format!("scale-out-{workers}-workers-{gateways}-gateways-{payments}-partitions");
    }
    Ok(records)
}

/// Adds the medians of the most important figures, layout by layout.
fn side_by_side(all: &[Record]) -> anyhow::Result<Record> {
    let mut summary = Record::of("scale-out", "payments, medians".to_owned());
    for records in all.chunk_by(|a, b| a.scenario == b.scenario) {
        let Some(first) = records.first() else { continue };
        let layout = first.scenario.trim_start_matches("scale-out-").replace('-', " ");
        for (name, unit) in FIGURES {
            summary.push(format!("{name}; {layout}"), unit, series::median(records, name)?);
        }
        let broken = records.iter().filter(|record| !record.holds()).count();
        summary.checks.push(Check::new(&format!("every rule holds with {layout}"), 0, i64::try_from(broken)?));
    }
    summary.figures.sort_by_key(|figure| FIGURES.iter().position(|(name, _)| figure.name.starts_with(name)));
    Ok(summary)
}
