//! `perf` profiles of gateways, workers and the driver: recorded during the load, and listed afterwards beside the
//! run's JSON by the functions that used the most CPU.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// Delay after the beginning of the load, until connections are open and groups of deliveries have reached their usual
/// size.
const SETTLE_IN: Duration = Duration::from_secs(1);
const LINES: usize = 60;
/// Longest line of a listing; names of generic functions can be much longer.
const COLUMNS: usize = 160;

/// The recording of one process.
#[derive(Debug)]
pub(crate) struct Recording {
    process: String,
    data: PathBuf,
}

/// Records all these processes and the driver at the same time.
///
/// # Errors
/// Where `perf` is missing or not permitted.
pub(crate) async fn record(processes: &[(String, u32)], seconds: u16, folder: &Path) -> anyhow::Result<Vec<Recording>> {
    fs::create_dir_all(folder)?;
    tokio::time::sleep(SETTLE_IN).await;
    let (mut recordings, mut running) = (Vec::new(), Vec::new());
    let driver = ("driver".to_owned(), std::process::id());
    for (process, pid) in processes.iter().chain([&driver]) {
        let data = folder.join(format!("perf-{process}.data"));
        let mut command = Command::new("perf");
        command.args(["record", "--quiet", "-F", "499", "-g", "-p", &pid.to_string(), "-o"]).arg(&data);
        command.args(["--", "sleep", &seconds.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        running.push(command.spawn().context("perf cannot be started: is it installed?")?);
        recordings.push(Recording { process: process.clone(), data });
    }
    for child in running {
        let output = child.wait_with_output().await?;
        ensure!(output.status.success(), "perf record: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(recordings)
}

/// Writes one listing for each process, to a file whose path begins with `stem`.
///
/// # Errors
/// Where `perf` cannot read its recording, or a file cannot be written.
pub(crate) async fn report(recordings: Vec<Recording>, stem: &Path) -> anyhow::Result<()> {
    for Recording { process, data } in recordings {
        let mut command = Command::new("perf");
        command.args(["report", "--no-children", "--stdio", "--call-graph", "none", "--percent-limit", "0.2", "-i"]);
        let output = command.arg(&data).stdin(Stdio::null()).output().await.context("perf report")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let listed =
            text.lines().map(str::trim_end).filter(|line| !line.trim_start_matches(['#', ' ', '.']).is_empty());
        let lines: Vec<String> = listed.take(LINES).map(|line| line.chars().take(COLUMNS).collect()).collect();
        let path = stem.with_extension(format!("perf-{process}.txt"));
        fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("{}", path.display()))?;
        eprintln!("bench: {} (all of it: perf report -i {})", path.display(), data.display());
    }
    Ok(())
}
