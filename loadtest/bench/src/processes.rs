//! The gateways and workers of a run, started on ports of their own and stopped after it.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use crate::{
    args::Args,
    config::Installation,
    cpu::{self, Group},
    exposition::Reading,
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Offset of the workers' ports, after those of up to ten gateways with two each.
const WORKERS_PORT_OFFSET: u16 = 20;
const WORKERS_MAX: usize = 10;
/// The pool that the program `renderer` serves.
const DOCUMENTS: &str = "documents";

/// The processes of a run.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Number of gateway processes.
    pub gateways: u8,
    /// Pools of each worker process, separated by commas.
    pub workers: Vec<String>,
    /// Settings of the gateways in addition to the instance's.
    pub gateway_env: Vec<(String, String)>,
    /// Settings of the workers in addition to the instance's.
    pub workers_env: Vec<(String, String)>,
}

/// The running processes, which are killed when this is dropped.
pub(crate) struct RunningSystem {
    /// Listen addresses of the gateways.
    pub gateways: Vec<SocketAddr>,
    groups: Vec<Group>,
    metrics_urls: Vec<(String, String)>,
    client: reqwest::Client,
    running: Vec<Running>,
}

struct Running {
    name: String,
    child: Child,
    ready_url: String,
}

/// CPU time and metrics at one moment.
#[derive(Clone, Debug)]
pub(crate) struct SystemSnapshot {
    /// CPU time by group.
    pub usage: cpu::Usage,
    /// Metrics of gateways and workers.
    pub metrics: Reading,
}

impl Layout {
    /// The layout that the command line asks for.
    pub(crate) fn of(args: &Args) -> Self {
        let with = |more: &[(String, String)]| args.env.iter().chain(more).cloned().collect();
        Self {
            gateways: args.gateways,
            workers: args.workers.clone(),
            gateway_env: with(&args.gateway_env),
            workers_env: with(&args.workers_env),
        }
    }
}

impl RunningSystem {
    /// Starts all processes and waits until they are ready.
    ///
    /// # Errors
    /// Where a program is missing, ends, or is not ready within [`READY_WITHIN`].
    pub(crate) async fn start(installation: &Installation, layout: &Layout) -> anyhow::Result<Self> {
        if layout.workers.len() > WORKERS_MAX {
            bail!("at most {WORKERS_MAX} worker processes have ports");
        }
        let mut system = RunningSystem {
            gateways: Vec::new(),
            groups: Vec::new(),
            metrics_urls: Vec::new(),
            client: reqwest::Client::new(),
            running: Vec::new(),
        };
        for (index, pools) in layout.workers.iter().enumerate() {
            let metrics = loopback(installation.port_base + WORKERS_PORT_OFFSET + u16::try_from(index)?);
            let (settings, more) = (&installation.workers_settings, &layout.workers_env);
            let mut command = command(installation, program(pools)?, niceness(pools), settings, more);
            command.arg("run").env("REGISTRAR__METRICS_LISTEN", metrics.to_string());
            if pools != DOCUMENTS {
                command.args(["--pools", pools]);
            }
            system.add(installation, format!("workers-{}", index + 1), command, metrics, metrics)?;
        }
        for index in 0..layout.gateways {
            let listen = loopback(installation.port_base + 2 * u16::from(index));
            let metrics = loopback(listen.port() + 1);
            let mut command = command(installation, "gateway", 0, &installation.gateway_settings, &layout.gateway_env);
            command.env("REGISTRAR__LISTEN", listen.to_string());
            command.env("REGISTRAR__METRICS_LISTEN", metrics.to_string());
            system.add(installation, format!("gateway-{}", index + 1), command, listen, metrics)?;
            system.gateways.push(listen);
        }
        for (name, pid) in [("broker", installation.rabbitmq_pid), ("postgres", installation.postgres_pid)] {
            system.groups.extend(pid.map(|pid| Group { name: name.into(), pid, tree: true }));
        }
        // Gateways and workers are children of this process, but their CPU time is not the driver's.
        system.groups.push(Group { name: "driver".into(), pid: std::process::id(), tree: false });
        system.await_ready().await?;
        Ok(system)
    }

    fn add(
        &mut self,
        installation: &Installation,
        name: String,
        mut command: Command,
        ready: SocketAddr,
        metrics: SocketAddr,
    ) -> anyhow::Result<()> {
        for address in [ready, metrics] {
            TcpListener::bind(address).with_context(|| {
                format!("{address}, for {name}, is taken: is another benchmark running, or was one killed?")
            })?;
        }
        let log = File::create(installation.logs.join(format!("bench-{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        self.groups.push(Group { name: name.clone(), pid, tree: true });
        self.metrics_urls.push((name.clone(), format!("http://{metrics}/metrics")));
        self.running.push(Running { name, child, ready_url: format!("http://{ready}/health/ready") });
        Ok(())
    }

    async fn await_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for running in &mut self.running {
            loop {
                if let Some(status) = running.child.try_wait()? {
                    bail!(
                        "{} ended while it was starting ({status}): see its log bench-{}.log",
                        running.name,
                        running.name
                    );
                }
                let answer = self.client.get(&running.ready_url).timeout(Duration::from_secs(2)).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    break;
                }
                if Instant::now() > deadline {
                    bail!(
                        "{} is not ready after {READY_WITHIN:?}: see its log bench-{}.log",
                        running.name,
                        running.name
                    );
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Reads CPU time and metrics.
    ///
    /// # Errors
    /// Where a process does not answer.
    pub(crate) async fn snapshot(&self) -> anyhow::Result<SystemSnapshot> {
        let metrics = Reading::take(&self.client, &self.metrics_urls).await?;
        Ok(SystemSnapshot { usage: cpu::usage(&self.groups), metrics })
    }

    /// Memory by group, MiB.
    pub(crate) fn memory_mib(&self) -> std::collections::BTreeMap<String, f64> {
        cpu::memory_mib(&self.groups)
    }

    /// Names and pids of gateways and workers.
    pub(crate) fn pids(&self) -> Vec<(String, u32)> {
        self.running.iter().filter_map(|r| Some((r.name.clone(), r.child.id()?))).collect()
    }

    /// Sends SIGTERM to all processes and waits for them.
    ///
    /// # Errors
    /// Where a process cannot be waited for.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for (_, pid) in self.pids() {
            Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        }
        for running in &mut self.running {
            if tokio::time::timeout(STOP_WITHIN, running.child.wait()).await.is_err() {
                eprintln!("bench: {} does not stop, killing it", running.name);
                running.child.kill().await?;
            }
        }
        Ok(())
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The program that serves these pools.
fn program(pools: &str) -> anyhow::Result<&'static str> {
    if pools == DOCUMENTS {
        return Ok("renderer");
    }
    if pools.split(',').any(|pool| pool == DOCUMENTS) {
        bail!("`{DOCUMENTS}` has a program of its own: write `--workers {DOCUMENTS}` beside the others");
    }
    Ok("workers")
}

/// CPU priorities as in `deploy/local/lib.sh`: bulk work yields to what clients wait for, PDFs and mails to everything.
fn niceness(pools: &str) -> u32 {
    if pools == DOCUMENTS || pools == "email" {
        19
    } else if pools.contains("payments") {
        3
    } else {
        0
    }
}

/// Command of a program in a session of its own, as `deploy/local/app` starts it. The working directory is the
/// repository root.
fn command(
    installation: &Installation,
    program: &str,
    niceness: u32,
    settings: &[(String, String)],
    more: &[(String, String)],
) -> Command {
    let mut command = Command::new("setsid");
    if niceness > 0 {
        command.arg("deploy/local/cpu-priority").arg(niceness.to_string());
    }
    command.arg(installation.programs.join(program));
    for (key, _) in installation.gateway_settings.iter().chain(&installation.workers_settings) {
        command.env_remove(key);
    }
    command.envs(settings.iter().chain(more).map(|(key, value)| (key, value)));
    command
}
