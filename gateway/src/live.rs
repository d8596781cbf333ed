//! Who waits for what, and how they are told. Workers name what they settled, and whom they notified, on the live
//! exchange; a gateway drops whatever nobody here waits for, and reads the rest in few queries for many. What a missed
//! message leaves waiting is found by sweeps, again many in one: 20,000 waiting clients cost memory, not queries.

mod reader;
mod streams;
mod waiters;

use std::time::{Duration, Instant};

use contracts::amqp::live::{self, LiveEvent};
use tokio::{task::JoinHandle, time::MissedTickBehavior};
use uuid::Uuid;

use crate::state::App;

pub use reader::{Found, Mark, Missed, PAGE_ROWS, Reader};
pub use streams::{News, Streams, Subscription};
pub use waiters::{Waiter, Waiters};

/// How often it is looked whose sweep is due and which sign-ins have ended: well within the five seconds promised.
const TICK: Duration = Duration::from_secs(1);

/// Follows the live exchange for ever.
pub async fn follow(app: App) {
    let mut events = live::subscribe(app.amqp_settings("gateway live"));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep: Option<JoinHandle<()>> = None;
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                let mut named = Vec::new();
                take_in(&app, event, &mut named);
                while let Ok(event) = events.try_recv() {
                    take_in(&app, event, &mut named);
                }
                let awaited = app.waiters.awaited(named);
                if !awaited.is_empty() {
                    tokio::spawn(hand_out(app.clone(), awaited, "woken"));
                }
            }
            _ = ticks.tick() => {
                app.streams.end_where(|sid| app.auth.is_revoked(sid));
                if sweep.as_ref().is_none_or(JoinHandle::is_finished) {
                    let due = app.waiters.due(Instant::now());
                    sweep = (!due.is_empty()).then(|| tokio::spawn(hand_out(app.clone(), due, "swept")));
                }
            }
        }
    }
}

/// Notes what an event says.
fn take_in(app: &App, event: LiveEvent, named: &mut Vec<Uuid>) {
    match event {
        LiveEvent::Message(message) => {
            if !message.revoked_sids.is_empty() {
                app.auth.revoke_sids(&message.revoked_sids);
                app.streams.end_where(|sid| message.revoked_sids.contains(&sid));
            }
            app.streams.tell(&message);
            named.extend(message.operations.iter().map(|operation| operation.id));
        }
        LiveEvent::Disconnected => metrics::gauge!("gateway_live_connected").set(0.0),
        LiveEvent::Connected => {
            metrics::gauge!("gateway_live_connected").set(1.0);
            app.waiters.all_due();
            app.streams.all_behind();
            let app = app.clone();
            tokio::spawn(async move {
                if let Err(error) = app.auth.load_revocations(&app.db).await {
                    tracing::warn!(%error, "revoked sign-ins cannot be read now");
                }
            });
        }
    }
}

/// Reads what waiters here want and hands it out. What cannot be read now stays awaited: a sweep reads it.
async fn hand_out(app: App, mut ids: Vec<Uuid>, why: &'static str) {
    ids.sort_unstable();
    ids.dedup();
    for ids in ids.chunks(reader::IDS_MAX) {
        match app.reader.operations(ids.to_vec()).await {
            Ok(settled) => settled.into_iter().for_each(|settled| app.waiters.wake(settled, why)),
            Err(problem) => return tracing::warn!(?problem, "settled operations cannot be read now"),
        }
    }
}
