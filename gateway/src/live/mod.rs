//! Live updates: long polls and event streams. Workers name what they settled, and whom they notified, on the exchange
//! `live`; a gateway drops whatever nobody here waits for, and reads the rest in few queries for many. Whatever a missed
//! message leaves waiting is found by sweeps, again many in one query: 20,000 waiting clients cost memory, not queries.

pub mod notifications;
pub mod operations;
mod reader;
mod streams;
mod waiters;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use contracts::amqp::{
    AmqpSettings,
    live::{self as exchange, LiveEvent},
};
use sqlx::PgPool;
use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    auth::Auth,
    config::{self, Limits},
};

pub use reader::{Found, Missed, PAGE_ROWS, Reader};
pub use streams::{StreamUpdate, Streams, Subscription};
pub use waiters::{Waiter, Waiters};

/// A place in a user's rows: those after it are settled or written later, or at the same time with a greater id.
pub type Mark = (DateTime<Utc>, Uuid);

/// The interval at which due sweeps and ended sign-ins are looked for: well within the five seconds promised.
const TICK: Duration = Duration::from_secs(1);

/// The clients that wait or listen here, and the reader that serves them; one for the process.
pub struct Live {
    /// Long polls.
    pub waiters: Waiters,
    /// Event streams.
    pub streams: Streams,
    /// Reads for both.
    pub reader: Reader,
    /// Intervals of sweeps and heartbeats.
    pub settings: config::LiveSettings,
}

impl Live {
    /// Starts the reader; nobody waits yet, and nobody waits longer than until `draining`.
    pub fn new(settings: &config::LiveSettings, limits: &Limits, db: PgPool, draining: CancellationToken) -> Self {
        let sweep_pause = Duration::from_millis(settings.waiter_sweep_ms);
        Self {
            waiters: Waiters::new(limits.waiters_max, sweep_pause, draining),
            streams: Streams::new(limits.waiters_max),
            reader: Reader::start(db),
            settings: settings.clone(),
        }
    }
}

/// Follows the exchange `live` for ever.
pub async fn follow(live: Arc<Live>, auth: Arc<Auth>, db: PgPool, amqp: AmqpSettings) {
    let mut events = exchange::subscribe(amqp);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep: Option<JoinHandle<()>> = None;
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                let mut settled = Vec::new();
                receive(&live, &auth, &db, event, &mut settled);
                while let Ok(event) = events.try_recv() {
                    receive(&live, &auth, &db, event, &mut settled);
                }
                let awaited = live.waiters.awaited(settled);
                if !awaited.is_empty() {
                    tokio::spawn(deliver(live.clone(), awaited, "woken"));
                }
            }
            _ = ticks.tick() => {
                live.streams.end_where(|sid| auth.is_revoked(sid));
                if sweep.as_ref().is_none_or(JoinHandle::is_finished) {
                    let due = live.waiters.due(Instant::now());
                    sweep = (!due.is_empty()).then(|| tokio::spawn(deliver(live.clone(), due, "swept")));
                }
            }
        }
    }
}

/// Applies one event of the exchange; adds the operations that it names to `settled`.
fn receive(live: &Live, auth: &Arc<Auth>, db: &PgPool, event: LiveEvent, settled: &mut Vec<Uuid>) {
    match event {
        LiveEvent::Message(message) => {
            if !message.revoked_sids.is_empty() {
                auth.revoke_sids(&message.revoked_sids);
                live.streams.end_where(|sid| message.revoked_sids.contains(&sid));
            }
            live.streams.notify(&message);
            settled.extend(message.operations.iter().map(|operation| operation.id));
        }
        LiveEvent::Disconnected => metrics::gauge!("gateway_live_connected").set(0.0),
        LiveEvent::Connected => {
            metrics::gauge!("gateway_live_connected").set(1.0);
            live.waiters.all_due();
            live.streams.all_behind();
            let (auth, db) = (auth.clone(), db.clone());
            tokio::spawn(async move {
                if let Err(error) = auth.load_revocations(&db).await {
                    tracing::warn!(%error, "revoked sign-ins cannot be read now");
                }
            });
        }
    }
}

/// Reads awaited operations and wakes their waiters. Those that cannot be read now stay awaited: a sweep reads them.
async fn deliver(live: Arc<Live>, mut ids: Vec<Uuid>, how: &'static str) {
    ids.sort_unstable();
    ids.dedup();
    for ids in ids.chunks(reader::IDS_MAX) {
        match live.reader.operations(ids.to_vec()).await {
            Ok(settled) => settled.into_iter().for_each(|settled| live.waiters.wake(settled, how)),
            Err(problem) => return tracing::warn!(?problem, "settled operations cannot be read now"),
        }
    }
}
