//! The benchmark of Registrar: release builds, HTTP connections, and effects counted in Postgres. `loadtest/bench/run`
//! prepares services, builds and settings, and starts this program.

mod args;
mod breakdown;
mod broker;
mod chart;
mod config;
mod connection;
mod cpu;
mod database;
mod exposition;
mod load;
mod processes;
mod profile;
mod quantiles;
mod record;
mod request;
mod scenario;
mod scenarios;
mod series;
mod services;
mod settled;
mod single_run;
mod table;
mod tokens;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{Args, ScenarioName},
    config::Installation,
    record::Record,
    scenarios::{
        ApprovalsScenario, MailScenario, PaymentsScenario, PdfScenario, RegistrantKind, RegistrationsScenario,
    },
    series::measure,
};

/// Exit code that shells use for a program ended by SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system lets a program wait for its own files");
    let ended = runtime.block_on(async {
        // Dropping `run`, for whatever reason, ends the gateways and workers.
        tokio::select! {
            ended = run() => Some(ended),
            () = interrupted() => None,
        }
    });
    // The driver's threads may still be waiting for responses.
    runtime.shutdown_background();
    match ended {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
        None => ExitCode::from(INTERRUPTED),
    }
}

/// Returns at the first SIGINT, SIGTERM or SIGHUP.
async fn interrupted() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => signals.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = wait(SignalKind::interrupt()) => {}
        _ = wait(SignalKind::terminate()) => {}
        _ = wait(SignalKind::hangup()) => {}
    }
    eprintln!("bench: interrupted; gateways and workers are killed");
}

async fn run() -> anyhow::Result<()> {
    if let Some(helped) = scenarios::run_helper_process().await {
        return helped;
    }
    let args = &Args::parse();
    let installation = &Installation::from_env(&args.env)?;
    let scenarios = if args.scenarios.is_empty() { vec![ScenarioName::Payments] } else { args.scenarios.clone() };
    let registrations = |registrants| RegistrationsScenario::new(registrants, args.seats);
    let approvals = || ApprovalsScenario::new(args.items as usize);
    let mut broken = 0;
    for name in scenarios {
        let records = match name {
            ScenarioName::Payments => measure(args, installation, PaymentsScenario::under_load()).await,
            ScenarioName::Unloaded => measure(args, installation, PaymentsScenario::unloaded()).await,
            ScenarioName::RegistrationsKnown => measure(args, installation, registrations(RegistrantKind::Known)).await,
            ScenarioName::RegistrationsNew => measure(args, installation, registrations(RegistrantKind::New)).await,
            ScenarioName::Approvals => measure(args, installation, approvals()).await,
            ScenarioName::Pdf => scenarios::measure_backlog(args, installation, PdfScenario::default()).await,
            ScenarioName::Mail => scenarios::measure_backlog(args, installation, MailScenario::default()).await,
            other => {
                broken += scenarios::run_scenario(other, args, installation).await?;
                continue;
            }
        };
        broken += show(args, &records.with_context(|| format!("{name:?}"))?)?;
    }
    ensure!(broken == 0, "{broken} runs broke a rule");
    Ok(())
}

/// Prints and draws the runs of each model; returns how many runs broke a rule.
fn show(args: &Args, records: &[Record]) -> anyhow::Result<usize> {
    for records in records.chunk_by(|a, b| a.model == b.model) {
        print!("{}", table::render(records));
        if let Some(first) = records.first() {
            let path = args.results.join(format!("{}.svg", first.file_stem()));
            chart::draw(records, &path)?;
            println!("  chart: {}", path.display());
        }
    }
    Ok(records.iter().filter(|record| !record.holds()).count())
}
