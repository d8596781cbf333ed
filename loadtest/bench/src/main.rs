//! The benchmark of Registrar: real processes, real HTTP, effects counted in Postgres. `loadtest/bench/run` prepares the
//! services, the builds and the settings, and starts this.

mod args;
mod breakdown;
mod broker;
mod config;
mod connection;
mod cpu;
mod database;
mod exposition;
mod load;
mod picture;
mod processes;
mod profile;
mod quantiles;
mod record;
mod repeat;
mod request;
mod scenario;
mod series;
mod settled;
mod table;
mod tokens;
mod world;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{Args, ScenarioName},
    config::Installation,
    record::Record,
    scenario::{Approvals, Mail, Payments, Pdf, Registrants, Registrations},
    series::measure,
};

/// As a shell tells that a signal ended a program.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system lets a program wait for its own files");
    let ended = runtime.block_on(async {
        // Whatever ends this, dropping `run` ends the gateways and workers.
        tokio::select! {
            ended = run() => Some(ended),
            () = interrupted() => None,
        }
    });
    // The driver's threads may still be waiting for answers.
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

/// Ends with the first signal that asks this program to.
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
    if let Some(helped) = scenario::help().await {
        return helped;
    }
    let args = &Args::parse();
    let installation = &Installation::from_env(&args.env)?;
    let scenarios = if args.scenarios.is_empty() { vec![ScenarioName::Payments] } else { args.scenarios.clone() };
    let registrations = |registrants| Registrations::of(registrants, args.seats);
    let approvals = || Approvals::of(args.items as usize);
    let mut broken = 0;
    for name in scenarios {
        let records = match name {
            ScenarioName::Payments => measure(args, installation, Payments::under_load()).await,
            ScenarioName::Unloaded => measure(args, installation, Payments::unloaded()).await,
            ScenarioName::RegistrationsKnown => measure(args, installation, registrations(Registrants::Known)).await,
            ScenarioName::RegistrationsNew => measure(args, installation, registrations(Registrants::New)).await,
            ScenarioName::Approvals => measure(args, installation, approvals()).await,
            ScenarioName::Pdf => scenario::work_off(args, installation, Pdf::default()).await,
            ScenarioName::Mail => scenario::work_off(args, installation, Mail::default()).await,
            other => {
                broken += scenario::play(other, args, installation).await?;
                continue;
            }
        };
        broken += show(args, &records.with_context(|| format!("{name:?}"))?)?;
    }
    ensure!(broken == 0, "{broken} runs broke a rule");
    Ok(())
}

/// Prints and draws the runs of each model; answers how many of them broke a rule.
fn show(args: &Args, records: &[Record]) -> anyhow::Result<usize> {
    for records in records.chunk_by(|a, b| a.model == b.model) {
        print!("{}", table::render(records));
        if let Some(first) = records.first() {
            let path = args.results.join(format!("{}.svg", first.file_stem()));
            picture::draw(records, &path)?;
            println!("  picture: {}", path.display());
        }
    }
    Ok(records.iter().filter(|record| !record.holds()).count())
}
