//! The program: reads the settings, serves until SIGTERM or SIGINT, and ends within the time that supervisors give.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use gateway::{config::GatewaySettings, gateway::Gateway, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// A fifth of the gateway's own time went into glibc's malloc and free, and its arenas keep what a burst has taken.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The HTTP edge of Registrar. Settings come from a TOML file and from variables such as REGISTRAR__DATABASE__URL, which
/// win; deploy/gateway.sample.toml shows all of them.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Settings, as TOML.
    #[arg(long, env = "REGISTRAR_CONFIG")]
    config: Option<PathBuf>,
    /// Read and check the settings, then exit.
    #[arg(long)]
    check_config: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = GatewaySettings::load(arguments.config.as_deref())?;
    if arguments.check_config {
        println!("The settings hold together.");
        return Ok(());
    }
    telemetry::start(&settings.log)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(settings.threads()).enable_all().build()?;
    runtime.block_on(run(settings))
}

async fn run(settings: GatewaySettings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let gateway = Gateway::start(settings).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    gateway.stop().await;
    Ok(())
}
