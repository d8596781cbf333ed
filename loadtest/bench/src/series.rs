//! The runs of one scenario, on one set of processes: as often as was asked for, and where the open model wants a share of
//! the closed maximum, those of the closed model first.

use std::fs;

use anyhow::Context as _;

use crate::{
    args::{Args, Rate},
    config::Installation,
    database,
    processes::{Layout, System},
    quantiles,
    record::Record,
    repeat,
    scenario::Scenario,
    world::World,
};

/// How much more is made ready than the fastest run so far has used.
const HEADROOM: f64 = 1.25;

/// What the runs of a scenario work with.
struct Series<'a, S> {
    world: World,
    system: System,
    scenario: &'a mut S,
}

/// All runs of one scenario, one model after the other.
///
/// # Errors
/// Where a process or a server fails, or a warm-up is not drained.
pub async fn measure<S: Scenario>(
    args: &Args,
    installation: &Installation,
    mut scenario: S,
) -> anyhow::Result<Vec<Record>> {
    if !args.keep_data {
        database::make_anew(installation).await?;
    }
    let mut args = scenario.adapt(args.clone());
    let world = World::connect(installation).await?;
    if !args.keep_data {
        world.broker.purge().await?;
    }
    let system = System::start(installation, &Layout::of(&args)).await?;
    let mut series = Series { world, system, scenario: &mut scenario };
    let mut records = Vec::new();
    args.rate = match args.rate_wanted {
        None => None,
        Some(Rate::PerSecond(rate)) => Some(rate),
        Some(Rate::Percent(percent)) => {
            let most = match args.of {
                Some(of) => f64::from(of),
                None => {
                    records = series.runs(&args).await?;
                    median(&records, "settled, end to end")?
                }
            };
            Some((most * f64::from(percent) / 100.0) as u32)
        }
    };
    if records.iter().all(Record::holds) {
        records.extend(series.runs(&args).await?);
    }
    series.system.stop().await?;
    Ok(records)
}

impl<S: Scenario> Series<'_, S> {
    /// Ends early where a rule is broken: what is left over would be counted with the next run.
    async fn runs(&mut self, args: &Args) -> anyhow::Result<Vec<Record>> {
        let mut ready_per_second = args.rate.map_or(args.ready_per_second, |rate| rate + rate / 20 + 1);
        let mut records = Vec::new();
        for index in 1..=args.repeats {
            eprintln!("bench: {}, run {index} of {}", self.scenario.name(), args.repeats);
            let record = repeat::run(args, &self.world, &self.system, self.scenario, ready_per_second).await?;
            if args.rate.is_none() {
                let fastest = record.figure("accepted").context("every run has a rate")?;
                ready_per_second = (fastest * HEADROOM) as u32;
            }
            write(args, &record, index)?;
            records.push(record);
            if !records.iter().all(Record::holds) {
                break;
            }
        }
        Ok(records)
    }
}

/// The median of a figure over these runs.
///
/// # Errors
/// Where they do not have it.
pub fn median(records: &[Record], figure: &str) -> anyhow::Result<f64> {
    let mut values: Vec<f64> = records.iter().filter_map(|record| record.figure(figure)).collect();
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| quantiles::at(&values, 0.5)).with_context(|| format!("no run has `{figure}`"))
}

/// Writes a run's JSON.
///
/// # Errors
/// Where the folder cannot be written to.
pub fn write(args: &Args, record: &Record, index: u16) -> anyhow::Result<()> {
    fs::create_dir_all(&args.results).with_context(|| format!("{}", args.results.display()))?;
    let path = args.results.join(format!("{}-{index}.json", record.file_stem()));
    fs::write(&path, serde_json::to_vec_pretty(record)?).with_context(|| format!("{}", path.display()))?;
    eprintln!("bench: {}", path.display());
    Ok(())
}
