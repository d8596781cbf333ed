//! One stream of events. It reads rows once its client has taken those before: nothing is read, and little is kept, for a
//! client that does not read.

use std::{collections::HashSet, time::Duration};

use axum::body::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use contracts::{Problem, ids::OperationIds};
use rand::RngExt;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::event_id;
use crate::{
    auth::Caller,
    live::{
        Found, Mark, Missed, PAGE_ROWS, StreamUpdate, Subscription, notifications::Notification,
        operations::SettledOperation,
    },
};

/// Longer than a transaction takes from its beginning to its commit: at most a dozen statements of 5 s that never all
/// come near it.
const OVERLAP: TimeDelta = TimeDelta::seconds(30);
/// Rows that a stream remembers to have sent; beyond it some may come twice.
const REMEMBERED_MAX: usize = 1_024;
/// After a read that failed.
const RETRY: Duration = Duration::from_secs(3);
/// The pause before a client reconnects, in milliseconds; different for each, as a gateway that ends leaves thousands.
const COME_BACK_MS: std::ops::RangeInclusive<u32> = 500..=5_000;

/// The beginning of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// From now on.
    Now(DateTime<Utc>),
    /// With everything that the client may have missed since.
    From(DateTime<Utc>),
    /// As [`Start::Now`], after an event that tells the client to read the lists.
    Reset(DateTime<Utc>),
}

/// One stream of events.
pub(super) struct Feed {
    subscription: Subscription,
    /// Makes the ids of operations.
    ids: OperationIds,
    caller: Caller,
    greeting: Option<Start>,
    /// Everything until then was sent.
    position: DateTime<Utc>,
    missing: Option<Missing>,
    sent: HashSet<(Uuid, DateTime<Utc>)>,
    heartbeat_at: Instant,
    sweep_at: Instant,
    ends_at: Instant,
}

/// A catch-up in progress, page by page.
struct Missing {
    operations: Option<Mark>,
    notifications: Option<Mark>,
    urgent: bool,
    /// Both kinds are read, so the position moves: to the time at which the first page was read.
    is_whole: bool,
    first_read_at: Option<DateTime<Utc>>,
}

impl Feed {
    pub(super) fn new(
        subscription: Subscription,
        ids: OperationIds,
        caller: Caller,
        start: Start,
        lifetime: Duration,
    ) -> Self {
        let (Start::Now(position) | Start::From(position) | Start::Reset(position)) = start;
        let now = Instant::now();
        let mut feed = Self {
            subscription,
            ids,
            caller,
            greeting: Some(start),
            position,
            missing: None,
            sent: HashSet::new(),
            heartbeat_at: now,
            sweep_at: now,
            ends_at: now + lifetime,
        };
        feed.sweep_at = now + feed.spread(feed.subscription.live().settings.stream_sweep_ms);
        feed
    }

    /// Waits for the next bytes to send; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        if let Some(start) = self.greeting.take() {
            self.greet(start, &mut out);
        }
        while out.is_empty() {
            if let Some(missing) = self.missing.take() {
                self.catch_up(missing, &mut out).await?;
                continue;
            }
            let wake_at = self.heartbeat_at.min(self.sweep_at).min(self.ends_at);
            tokio::select! {
                update = self.subscription.next_update() => self.apply(update, &mut out).await?,
                () = tokio::time::sleep_until(wake_at) => self.on_time(&mut out)?,
            }
        }
        self.heartbeat_at = Instant::now() + self.spread(self.subscription.live().settings.heartbeat_ms);
        Some(out.into())
    }

    fn greet(&mut self, start: Start, out: &mut Vec<u8>) {
        let come_back_ms = rand::rng().random_range(COME_BACK_MS);
        out.extend_from_slice(format!("retry: {come_back_ms}\n").as_bytes());
        match start {
            Start::Now(_) => {}
            Start::From(_) => self.missing = Some(self.all_missing(true)),
            Start::Reset(_) => out.extend_from_slice(b"event: reset\ndata: {}\n"),
        }
        self.note_position(out);
    }

    fn on_time(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let now = Instant::now();
        if now >= self.ends_at {
            return None;
        }
        if now >= self.sweep_at {
            self.missing = Some(self.all_missing(false));
        } else if now >= self.heartbeat_at {
            out.extend_from_slice(b":\n\n");
        }
        Some(())
    }

    async fn apply(&mut self, update: StreamUpdate, out: &mut Vec<u8>) -> Option<()> {
        if update.ended {
            return None;
        }
        if update.behind {
            self.missing = Some(self.all_missing(true));
            return Some(());
        }
        if update.notifications {
            let since = Some((self.position - OVERLAP, Uuid::nil()));
            let missing =
                Missing { operations: None, notifications: since, urgent: true, is_whole: false, first_read_at: None };
            self.missing = Some(missing);
        }
        if !update.operations.is_empty() {
            let read = self.subscription.live().reader.operations(update.operations);
            match self.unless_ended(read).await? {
                Ok(rows) => rows.into_iter().for_each(|row| self.send_operation(row, out)),
                Err(problem) => self.try_later(&problem),
            }
        }
        Some(())
    }

    fn all_missing(&self, urgent: bool) -> Missing {
        let since = Some((self.position - OVERLAP, Uuid::nil()));
        Missing { operations: since, notifications: since, urgent, is_whole: true, first_read_at: None }
    }

    /// Sends one page, and leaves what is still missing for the next time.
    async fn catch_up(&mut self, mut missing: Missing, out: &mut Vec<u8>) -> Option<()> {
        let request = Missed {
            principal: self.caller.principal().to_string(),
            user_id: self.caller.user_id,
            operations: missing.operations,
            notifications: missing.notifications,
            urgent: missing.urgent,
        };
        let Found { read_at, operations, notifications } =
            match self.unless_ended(self.subscription.live().reader.missed(request)).await? {
                Ok(found) => found,
                Err(problem) => {
                    self.try_later(&problem);
                    return Some(());
                }
            };
        missing.operations = rest(&operations, SettledOperation::mark);
        missing.notifications = rest(&notifications, Notification::mark);
        let first_read_at = *missing.first_read_at.get_or_insert(read_at);
        operations.into_iter().for_each(|row| self.send_operation(row, out));
        notifications.iter().for_each(|row| self.send("notification", row.mark(), row, out));
        let until = [missing.operations, missing.notifications].into_iter().flatten().map(|(time, _)| time).min();
        let is_whole = missing.is_whole;
        if until.is_some() {
            self.missing = Some(missing);
        } else if is_whole {
            self.sweep_at = Instant::now() + self.spread(self.subscription.live().settings.stream_sweep_ms);
        }
        if is_whole {
            self.position = self.position.max(until.unwrap_or(first_read_at));
            self.forget_old();
            self.note_position(out);
        }
        Some(())
    }

    fn send_operation(&mut self, row: SettledOperation, out: &mut Vec<u8>) {
        let mark = row.mark();
        if row.owner() == Some(self.caller.user_id)
            && let Some(view) = row.listed(&self.ids)
        {
            self.send("operation", mark, &view, out);
        }
    }

    fn send(&mut self, event: &'static str, (time, id): Mark, data: &impl Serialize, out: &mut Vec<u8>) {
        if self.sent.len() >= REMEMBERED_MAX {
            self.sent.clear();
        }
        if !self.sent.insert((id, time)) {
            return;
        }
        let data = serde_json::to_string(data).expect("a view is JSON by its types");
        // JSON without line breaks: one line of data.
        let event_id = event_id(self.position);
        out.extend_from_slice(format!("event: {event}\nid: {event_id}\ndata: {data}\n\n").as_bytes());
        metrics::counter!("gateway_events_total", "event" => event).increment(1);
    }

    /// An id without data moves the client's position and is not shown to it.
    fn note_position(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("id: {}\n\n", event_id(self.position)).as_bytes());
    }

    fn forget_old(&mut self) {
        let since = self.position - OVERLAP;
        self.sent.retain(|(_, time)| *time > since);
        self.sent.shrink_to_fit();
    }

    fn try_later(&mut self, problem: &Problem) {
        tracing::debug!(?problem, "a stream catches up later");
        self.sweep_at = Instant::now() + RETRY;
    }

    /// `None` where the stream ends meanwhile.
    async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.subscription.ended() => None,
            () = tokio::time::sleep_until(self.ends_at) => None,
        }
    }

    /// Spreads periods, so that streams opened at once do not stay in step.
    fn spread(&self, period_ms: u64) -> Duration {
        Duration::from_millis(period_ms).mul_f32(rand::rng().random_range(0.75..=1.0))
    }
}

/// The mark after which the next page goes on, where there may be one.
fn rest<T>(rows: &[T], mark: impl Fn(&T) -> Mark) -> Option<Mark> {
    rows.last().filter(|_| rows.len() >= PAGE_ROWS).map(mark)
}
