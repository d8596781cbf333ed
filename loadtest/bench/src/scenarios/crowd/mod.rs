//! Thousands of clients with one connection each, spread over driver processes because a process may open only so many
//! files. A driver is this program, started as `bench drive`; it reads its plan and its orders from stdin and writes
//! its reports to stdout, one JSON object a line.
//!
//! Invariant: all connections are open and idle before the first request is sent, and no request is abandoned.

mod driver;

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

pub(crate) use driver::drive;

/// Time from an order to its execution, so that all drivers have read it by then.
const LEAD: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// The clients of one driver.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Gateway of all its connections.
    pub gateway: SocketAddr,
    /// Clients with one connection each.
    pub clients: Vec<Client>,
}

/// A client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Client {
    /// A rendered POST that must be accepted.
    pub post: String,
    /// How it waits for the result afterwards; none: it does not wait.
    pub wait: Option<Wait>,
}

/// How a client waits for its result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Wait {
    /// Long polls of its operation, with this access token.
    Poll(String),
    /// Stream of its user's events, with this access token.
    Listen(String),
}

/// Result of one client's POST.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PostResult {
    /// Time from the moment at which the POST was due to its first response, microseconds.
    pub first_answer_us: u64,
    /// Status of the first response; 0 where the connection broke.
    pub first_status: u16,
    /// Time of the 202, microseconds since 1970.
    pub accepted_us: i64,
    /// Number of 503 responses before the 202.
    pub shed: u32,
    /// Number of broken connections before the 202.
    pub broken: u32,
}

/// An order to a driver: what its clients do from `at_us` on, microseconds since 1970, spread over `spread_us`.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Post { at_us: i64, spread_us: u64 },
    Wait { at_us: i64, spread_us: u64 },
}

/// A report of a driver.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// All connections are open.
    Open,
    /// All POSTs are accepted, in the order of the plan.
    Posted(Vec<PostResult>),
    /// All long polls are sent, and all streams have begun.
    Waiting,
    /// Times at which the clients were notified, microseconds since 1970, in the order of the plan.
    Notified(Vec<i64>),
}

/// The driver processes, which are killed when this is dropped.
pub(crate) struct Crowd {
    drivers: Vec<Driver>,
}

struct Driver {
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Crowd {
    /// Starts a driver for each plan and opens all connections.
    ///
    /// # Errors
    /// Where a driver ends, or a gateway refuses connections.
    pub(crate) async fn connect(plans: &[Plan]) -> anyhow::Result<Self> {
        let mut crowd = Self { drivers: Vec::new() };
        for plan in plans {
            let mut driver = Driver::start()?;
            driver.send(plan).await?;
            crowd.drivers.push(driver);
        }
        for driver in &mut crowd.drivers {
            let Report::Open = driver.report().await? else { bail!("a driver sent an unexpected report") };
        }
        Ok(crowd)
    }

    /// Sends all POSTs, spread evenly over this time; returns when that began, microseconds since 1970, and the
    /// results, plan by plan.
    ///
    /// # Errors
    /// Where a driver ends, or a POST gets another status than 202, 200 or 503.
    pub(crate) async fn post(&mut self, spread: Duration) -> anyhow::Result<(i64, Vec<Vec<PostResult>>)> {
        let (at_us, spread_us) = beginning(spread);
        self.order(&Order::Post { at_us, spread_us }).await?;
        let mut results = Vec::new();
        for driver in &mut self.drivers {
            let Report::Posted(of_driver) = driver.report().await? else { bail!("a driver sent an unexpected report") };
            results.push(of_driver);
        }
        Ok((at_us, results))
    }

    /// Makes all clients wait for their results, beginning spread over this time; returns when all wait.
    ///
    /// # Errors
    /// Where a driver ends, or a stream is rejected.
    pub(crate) async fn wait(&mut self, spread: Duration) -> anyhow::Result<()> {
        let (at_us, spread_us) = beginning(spread);
        self.order(&Order::Wait { at_us, spread_us }).await?;
        for driver in &mut self.drivers {
            let Report::Waiting = driver.report().await? else { bail!("a driver sent an unexpected report") };
        }
        Ok(())
    }

    /// Returns the times at which the clients were notified, microseconds since 1970, plan by plan, once all were.
    ///
    /// # Errors
    /// Where a driver ends, or a client is not notified within [`ANSWER_WITHIN`].
    pub(crate) async fn await_notified(mut self) -> anyhow::Result<Vec<Vec<i64>>> {
        let mut notified_us = Vec::new();
        for driver in &mut self.drivers {
            let Report::Notified(of_driver) = driver.report().await? else {
                bail!("a driver sent an unexpected report")
            };
            notified_us.push(of_driver);
        }
        Ok(notified_us)
    }

    async fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        for driver in &mut self.drivers {
            driver.send(order).await?;
        }
        Ok(())
    }
}

impl Driver {
    fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("drive").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("a driver cannot be started")?;
        let orders = child.stdin.take().context("stdin is piped")?;
        let reports = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        Ok(Self { orders, reports, _child: child })
    }

    async fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.orders.write_all(&line).await.context("a driver ended: its error stands above")?;
        Ok(())
    }

    async fn report(&mut self) -> anyhow::Result<Report> {
        let line = tokio::time::timeout(ANSWER_WITHIN, self.reports.next_line())
            .await
            .context("a driver sends no report")??;
        Ok(serde_json::from_str(&line.context("a driver ended: its error stands above")?)?)
    }
}

fn beginning(spread: Duration) -> (i64, u64) {
    let at = Utc::now() + LEAD;
    (at.timestamp_micros(), u64::try_from(spread.as_micros()).unwrap_or(u64::MAX))
}
