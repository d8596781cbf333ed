//! All runs of one scenario on the same processes. Where the open model asks for a percentage of the closed model's
//! rate, the runs of the closed model come first.

use std::fs;

use anyhow::Context as _;

use crate::{
    args::{Args, Rate},
    config::Installation,
    database,
    processes::{Layout, RunningSystem},
    quantiles,
    record::Record,
    scenario::Scenario,
    services::Services,
    single_run,
};

/// Factor on the rate of the fastest run so far, for the number of commands to render.
const HEADROOM: f64 = 1.25;

/// State of a series of runs.
struct Series<'a, S> {
    services: Services,
    system: RunningSystem,
    scenario: &'a mut S,
}

/// Measures all runs of one scenario, one model after the other.
///
/// # Errors
/// Where a process or a server fails, or a warm-up is not drained.
pub(crate) async fn measure<S: Scenario>(
    args: &Args,
    installation: &Installation,
    mut scenario: S,
) -> anyhow::Result<Vec<Record>> {
    if !args.keep_data {
        database::recreate(installation).await?;
    }
    let mut args = scenario.adapt(args.clone());
    let services = Services::connect(installation).await?;
    if !args.keep_data {
        services.broker.purge().await?;
    }
    let system = RunningSystem::start(installation, &Layout::of(&args)).await?;
    let mut series = Series { services, system, scenario: &mut scenario };
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
    /// Measures the runs of one model. Ends early where a rule is broken: effects that come late would be counted with
    /// the next run.
    async fn runs(&mut self, args: &Args) -> anyhow::Result<Vec<Record>> {
        let mut ready_per_second = args.rate.map_or(args.ready_per_second, |rate| rate + rate / 20 + 1);
        let mut records = Vec::new();
        for index in 1..=args.repeats {
            eprintln!("bench: {}, run {index} of {}", self.scenario.name(), args.repeats);
            let record =
                single_run::measure(args, &self.services, &self.system, self.scenario, ready_per_second).await?;
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

/// Returns the median of a figure over these runs.
///
/// # Errors
/// Where no run has this figure.
pub(crate) fn median(records: &[Record], figure: &str) -> anyhow::Result<f64> {
    let mut values: Vec<f64> = records.iter().filter_map(|record| record.figure(figure)).collect();
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| quantiles::at(&values, 0.5)).with_context(|| format!("no run has `{figure}`"))
}

/// Writes the JSON of a run.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn write(args: &Args, record: &Record, index: u16) -> anyhow::Result<()> {
    fs::create_dir_all(&args.results).with_context(|| format!("{}", args.results.display()))?;
    let path = args.results.join(format!("{}-{index}.json", record.file_stem()));
    fs::write(&path, serde_json::to_vec_pretty(record)?).with_context(|| format!("{}", path.display()))?;
    eprintln!("bench: {}", path.display());
    Ok(())
}
