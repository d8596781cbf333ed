//! The driver process, which holds the connections of one plan and executes its orders, on one thread.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use chrono::Utc;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::RngExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};

use super::{Client, Order, Plan, PostResult, Report, Wait};
use crate::connection::parse_with_body;

/// Connections that are being opened at the same time.
const OPENING_MAX: usize = 256;
const ATTEMPTS_MAX: u32 = 100;
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Wait of a long poll, seconds: the limit of the gateways.
const POLL_SECONDS: u64 = 30;
/// Bytes of a stream to keep, so that the name of an event is found in them.
const STREAM_TAIL: usize = 4_096;

struct Connection {
    gateway: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

struct Response {
    status: u16,
    retry_after: Option<u64>,
    body: String,
}

/// Executes the plan that is read from stdin.
///
/// # Errors
/// Where a request is rejected, or the process that started this one ends.
pub(crate) async fn drive() -> anyhow::Result<()> {
    let plan: Plan = next_message().await?;
    rlimit::increase_nofile_limit(u64::MAX).context("the limit of open files")?;
    let open = stream::iter(0..plan.clients.len()).map(|_| Connection::open(plan.gateway));
    let connections: Vec<Connection> =
        open.buffer_unordered(OPENING_MAX).try_collect().await.context("a gateway refuses connections")?;
    report(&Report::Open)?;

    let Order::Post { at_us, spread_us } = next_message().await? else { bail!("the first order must be to post") };
    let last = plan.clients.len().max(1) as u64;
    let posts = plan.clients.into_iter().zip(connections).enumerate().map(|(index, (client, connection))| {
        let due = moment(at_us) + Duration::from_micros(spread_us * index as u64 / last);
        tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            post(client, connection, due).await
        })
    });
    let posts: Vec<_> = posts.collect();
    let (mut results, mut waiting) = (Vec::new(), Vec::new());
    for post in posts {
        let (result, operation, wait, connection) = post.await??;
        results.push(result);
        waiting.extend(wait.map(|wait| (operation, wait, connection)));
    }
    report(&Report::Posted(results))?;
    if waiting.is_empty() { Ok(()) } else { wait_all(waiting).await }
}

async fn wait_all(waiting: Vec<(String, Wait, Connection)>) -> anyhow::Result<()> {
    let Order::Wait { at_us, spread_us } = next_message().await? else { bail!("the second order must be to wait") };
    let (count, begun) = (waiting.len(), Arc::new(Semaphore::new(0)));
    let mut waits = Vec::new();
    for (index, (operation, wait, connection)) in waiting.into_iter().enumerate() {
        let due = moment(at_us) + Duration::from_micros(spread_us * index as u64 / count as u64);
        let begun = begun.clone();
        waits.push(tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            match wait {
                Wait::Poll(token) => poll(connection, &operation, &token, &begun).await,
                Wait::Listen(token) => listen(connection, &token, &begun).await,
            }
        }));
    }
    let all = begun.acquire_many(u32::try_from(count)?);
    tokio::time::timeout(ANSWER_WITHIN, all).await.context("a stream does not begin")??.forget();
    report(&Report::Waiting)?;
    let mut notified_us = Vec::new();
    for wait in waits {
        notified_us.push(wait.await??);
    }
    report(&Report::Notified(notified_us))
}

/// Posts until accepted; returns the operation's id where the client waits for its result, an empty one otherwise.
async fn post(
    client: Client,
    mut connection: Connection,
    due: Instant,
) -> anyhow::Result<(PostResult, String, Option<Wait>, Connection)> {
    let mut result = PostResult { first_answer_us: 0, first_status: 0, accepted_us: 0, shed: 0, broken: 0 };
    for attempt in 0..ATTEMPTS_MAX {
        let answer = connection.exchange(client.post.as_bytes()).await;
        if attempt == 0 {
            result.first_answer_us = u64::try_from(due.elapsed().as_micros())?;
            result.first_status = answer.as_ref().map_or(0, |answer| answer.status);
        }
        let pause = match answer {
            Ok(answer) if matches!(answer.status, 200 | 202) => {
                result.accepted_us = Utc::now().timestamp_micros();
                let operation = if client.wait.is_some() { operation_id(&answer.body)? } else { String::new() };
                return Ok((result, operation, client.wait, connection));
            }
            Ok(Response { status: 503, retry_after, .. }) => {
                result.shed += 1;
                Duration::from_secs(retry_after.context("a 503 without Retry-After")?)
            }
            Ok(answer) => bail!("answered {}: {}", answer.status, answer.body),
            Err(_) => {
                result.broken += 1;
                Duration::from_millis(100)
            }
        };
        // Jitter, so that clients with the same Retry-After do not return at the same moment.
        let jitter = rand::rng().random_range(0.0..0.5);
        tokio::time::sleep(pause + pause.mul_f64(jitter)).await;
        if result.broken > 0 {
            connection.reopen().await;
        }
    }
    bail!("a request was not accepted in {ATTEMPTS_MAX} attempts")
}

fn operation_id(body: &str) -> anyhow::Result<String> {
    let view: serde_json::Value = serde_json::from_str(body)?;
    Ok(view["id"].as_str().context("an operation without an id")?.to_owned())
}

/// Long polls until the operation is settled; returns that time, microseconds since 1970.
async fn poll(mut connection: Connection, operation: &str, token: &str, begun: &Semaphore) -> anyhow::Result<i64> {
    let path = format!("/v1/operations/{operation}?wait={POLL_SECONDS}");
    let request = get(&path, token);
    connection.stream.write_all(request.as_bytes()).await?;
    begun.add_permits(1);
    loop {
        let answer = connection.answer().await.context("a long poll")?;
        ensure!(answer.status == 200, "a long poll is answered {}: {}", answer.status, answer.body);
        if !answer.body.contains(r#""state":"pending""#) {
            return Ok(Utc::now().timestamp_micros());
        }
        connection.stream.write_all(request.as_bytes()).await?;
    }
}

/// Reads the event stream until it has an operation; returns that time, microseconds since 1970.
async fn listen(mut connection: Connection, token: &str, begun: &Semaphore) -> anyhow::Result<i64> {
    connection.stream.write_all(get("/v1/events", token).as_bytes()).await?;
    connection.buffer.clear();
    let mut started = false;
    loop {
        ensure!(connection.stream.read_buf(&mut connection.buffer).await? > 0, "a stream of events ended");
        if !started && contains(&connection.buffer, b"\r\n\r\n") {
            ensure!(connection.buffer.starts_with(b"HTTP/1.1 200"), "a stream of events is refused");
            started = true;
            begun.add_permits(1);
        }
        if contains(&connection.buffer, b"event: operation") {
            return Ok(Utc::now().timestamp_micros());
        }
        if started && connection.buffer.len() > STREAM_TAIL {
            connection.buffer.drain(..STREAM_TAIL / 2);
        }
    }
}

fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\r\n")
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

impl Connection {
    async fn open(gateway: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        Ok(Self { gateway, stream, buffer: Vec::new() })
    }

    /// Replaces the connection; if this fails, the next exchange fails too.
    async fn reopen(&mut self) {
        if let Ok(connection) = Self::open(self.gateway).await {
            *self = connection;
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<Response> {
        self.stream.write_all(request).await?;
        tokio::time::timeout(ANSWER_WITHIN, self.answer()).await?
    }

    async fn answer(&mut self) -> io::Result<Response> {
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = parse(&self.buffer)? {
                return Ok(answer);
            }
        }
    }
}

/// Returns the response once it has arrived as a whole, none before that.
fn parse(bytes: &[u8]) -> io::Result<Option<Response>> {
    Ok(parse_with_body(bytes)?.map(|(head, body)| {
        let body = String::from_utf8_lossy(body).into_owned();
        Response { status: head.status, retry_after: head.retry_after, body }
    }))
}

/// Converts a time of the wall clock to the monotonic clock; now, where it has passed.
fn moment(unix_us: i64) -> Instant {
    let ahead = unix_us - Utc::now().timestamp_micros();
    Instant::now() + Duration::from_micros(u64::try_from(ahead).unwrap_or(0))
}

/// Reads a message from the next line of stdin.
async fn next_message<T: serde::de::DeserializeOwned>() -> anyhow::Result<T> {
    let line = tokio::task::spawn_blocking(|| io::stdin().lines().next()).await?;
    Ok(serde_json::from_str(&line.context("the process that started this driver ended")??)?)
}

/// Prints a line; stdout is line-buffered, also into a pipe.
fn report(report: &Report) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_complete_with_its_body() {
        let text = b"HTTP/1.1 202 Accepted\r\nRetry-After: 1\r\nContent-Length: 13\r\n\r\n{\"id\":\"op_1\"}";
        let answer = parse(text).expect("is HTTP").expect("is complete");
        assert_eq!((answer.status, answer.retry_after), (202, Some(1)));
        assert_eq!(operation_id(&answer.body).expect("has one"), "op_1");
        assert!(parse(&text[..text.len() - 1]).expect("is HTTP").is_none());
    }

    #[test]
    fn the_name_of_an_event_is_found_within_a_chunk() {
        assert!(contains(b"1f\r\nevent: operation\nid: 1\n", b"event: operation"));
        assert!(!contains(b"b\r\n: heartbeat", b"event: operation"));
    }
}
