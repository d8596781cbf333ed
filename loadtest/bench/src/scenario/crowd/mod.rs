//! A crowd of clients, a connection each, spread over driver processes, since one process may hold only so many files.
//! A driver is this program again, as `bench drive`; its plan and orders come on stdin, what happens goes out on
//! stdout, all of it JSON, one line each.
//!
//! Invariant: all connections are open, and idle, before the first request goes out, and no request is given up.

mod driver;

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

pub use driver::drive;

/// The drivers must hear of an order before its time comes.
const LEAD: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// What one driver is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// All its connections go there.
    pub gateway: SocketAddr,
    /// A connection each.
    pub clients: Vec<Client>,
}

/// What one client does.
#[derive(Debug, Serialize, Deserialize)]
pub struct Client {
    /// A rendered POST that is to be answered 202.
    pub post: String,
    /// Whether it waits for the result afterwards, and how.
    pub wait: Option<Wait>,
}

/// How a client waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Wait {
    /// By long polls of its operation, with this access token.
    Poll(String),
    /// By the stream of its user's events, with this access token.
    Listen(String),
}

/// What became of one client's POST.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// From the moment at which it was due to its first answer, microseconds.
    pub first_answer_us: u64,
    /// The first answer's status; 0 where the connection broke.
    pub first_status: u16,
    /// When it was answered 202, microseconds since 1970.
    pub taken_us: i64,
    /// Answers 503 before that.
    pub refused: u32,
    /// Connections that broke before that.
    pub broken: u32,
}

/// An order to a driver. Each begins at a moment, microseconds since 1970, and is spread over so many microseconds.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Post { at_us: i64, spread_us: u64 },
    Wait { at_us: i64, spread_us: u64 },
}

/// What a driver reports.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// All connections are open.
    Open,
    /// All POSTs are taken, in the order of the plan.
    Taken(Vec<Taken>),
    /// All who wait have asked, and the streams have begun.
    Waiting,
    /// When each was told, microseconds since 1970, in the order of the plan.
    Told(Vec<i64>),
}

/// The driver processes; dropping it kills them.
pub struct Crowd {
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
    pub async fn gather(plans: &[Plan]) -> anyhow::Result<Self> {
        let mut crowd = Self { drivers: Vec::new() };
        for plan in plans {
            let mut driver = Driver::start()?;
            driver.send(plan).await?;
            crowd.drivers.push(driver);
        }
        for driver in &mut crowd.drivers {
            let Report::Open = driver.report().await? else { bail!("a driver spoke out of turn") };
        }
        Ok(crowd)
    }

    /// All post, spread evenly over this long; answers when that began, microseconds since 1970, and what became of each,
    /// plan by plan.
    ///
    /// # Errors
    /// Where a driver ends, or a POST is answered otherwise than 202, 200 or 503.
    pub async fn post(&mut self, spread: Duration) -> anyhow::Result<(i64, Vec<Vec<Taken>>)> {
        let (at_us, spread_us) = beginning(spread);
        self.order(&Order::Post { at_us, spread_us }).await?;
        let mut taken = Vec::new();
        for driver in &mut self.drivers {
            let Report::Taken(of_driver) = driver.report().await? else { bail!("a driver spoke out of turn") };
            taken.push(of_driver);
        }
        Ok((at_us, taken))
    }

    /// All begin to wait, spread over this long; returns when they do.
    ///
    /// # Errors
    /// Where a driver ends, or a stream is refused.
    pub async fn wait(&mut self, spread: Duration) -> anyhow::Result<()> {
        let (at_us, spread_us) = beginning(spread);
        self.order(&Order::Wait { at_us, spread_us }).await?;
        for driver in &mut self.drivers {
            let Report::Waiting = driver.report().await? else { bail!("a driver spoke out of turn") };
        }
        Ok(())
    }

    /// Until all are told: when each was, microseconds since 1970, plan by plan.
    ///
    /// # Errors
    /// Where a driver ends, or somebody is not told for minutes.
    pub async fn told(mut self) -> anyhow::Result<Vec<Vec<i64>>> {
        let mut told = Vec::new();
        for driver in &mut self.drivers {
            let Report::Told(of_driver) = driver.report().await? else { bail!("a driver spoke out of turn") };
            told.push(of_driver);
        }
        Ok(told)
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
        let line =
            tokio::time::timeout(ANSWER_WITHIN, self.reports.next_line()).await.context("a driver is stuck")??;
        Ok(serde_json::from_str(&line.context("a driver ended: its error stands above")?)?)
    }
}

fn beginning(spread: Duration) -> (i64, u64) {
    let at = Utc::now() + LEAD;
    (at.timestamp_micros(), u64::try_from(spread.as_micros()).unwrap_or(u64::MAX))
}
