//! Profiles of our processes and of the driver under load, by `perf`: while the load is on they are recorded, afterwards the functions that
//! used most are listed beside the run's JSON.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// After the load has begun: connections are open and batches have found their size.
const SETTLE_IN: Duration = Duration::from_secs(1);
const LINES: usize = 60;
/// Names of generic functions have no end.
const COLUMNS: usize = 160;

/// What was recorded of one process.
#[derive(Debug)]
pub struct Recording {
    process: String,
    data: PathBuf,
}

/// Records all these processes at once, and this one.
///
/// # Errors
/// Where `perf` is missing or may not record.
pub async fn record(processes: &[(String, u32)], seconds: u16, folder: &Path) -> anyhow::Result<Vec<Recording>> {
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

/// Lists what used most, a file a process, each beginning with this path.
///
/// # Errors
/// Where `perf` cannot read what it recorded, or a file cannot be written.
pub async fn report(recordings: Vec<Recording>, stem: &Path) -> anyhow::Result<()> {
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
