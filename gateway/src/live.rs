//! Who waits for which operation. Workers tell of what they settled on the live exchange; one task reads all the ids that
//! are awaited here and were named since its last query in one query, and hands the rows out. What a missed message
//! leaves waiting is read every few seconds, again all in one: 20,000 waiting clients cost memory, not queries.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use contracts::amqp::live::{self, LiveEvent};
use sqlx::PgPool;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{operations::Settled, request, state::App};

/// How often whatever is still awaited is read, in case a live message was missed.
const SLOW_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Ids a query.
const IDS_MAX: usize = 1_000;

/// By operation: each who waits for it, under a number of their own.
type Waiting = HashMap<Uuid, Vec<(u64, oneshot::Sender<Settled>)>>;

/// Everybody who waits.
pub struct Waiters {
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    count: AtomicUsize,
    count_max: usize,
    draining: CancellationToken,
}

/// A place in the waiting room, given up when dropped.
pub struct Waiter<'a> {
    waiters: &'a Waiters,
    id: Uuid,
    number: u64,
    settled: oneshot::Receiver<Settled>,
}

impl Waiters {
    /// Nobody yet; at most so many, and nobody for longer than until the process drains.
    pub fn new(count_max: usize, draining: CancellationToken) -> Self {
        Self { waiting: Mutex::default(), next: AtomicU64::new(0), count: AtomicUsize::new(0), count_max, draining }
    }

    /// Begins to wait. Register first, then publish or query: what settles in between is not missed. `None` where too
    /// many wait already; the client is then told `pending` and asks again.
    pub fn register(&self, id: Uuid) -> Option<Waiter<'_>> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.count_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            metrics::counter!("gateway_shed_total", "reason" => "waiters").increment(1);
            return None;
        }
        let (sender, settled) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().entry(id).or_default().push((number, sender));
        metrics::gauge!("gateway_waiters").increment(1.0);
        Some(Waiter { waiters: self, id, number, settled })
    }

    fn awaited(&self, ids: impl IntoIterator<Item = Uuid>) -> Vec<Uuid> {
        let waiting = self.lock();
        ids.into_iter().filter(|id| waiting.contains_key(id)).collect()
    }

    fn all(&self) -> Vec<Uuid> {
        self.lock().keys().copied().collect()
    }

    fn wake(&self, settled: &Settled) {
        let waiting = self.lock().remove(&settled.id).unwrap_or_default();
        for (_, sender) in waiting {
            // Gone in the meantime: nothing to tell.
            let _ = sender.send(settled.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Waits until it is settled, at most this long. The request gives its place back meanwhile.
    pub async fn settled(mut self, at_most: Duration) -> Option<Settled> {
        request::leave_place();
        tokio::select! {
            settled = &mut self.settled => settled.ok(),
            () = tokio::time::sleep(at_most) => None,
            () = self.waiters.draining.cancelled() => None,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        if let Some(others) = waiting.get_mut(&self.id) {
            others.retain(|(number, _)| *number != self.number);
            if others.is_empty() {
                waiting.remove(&self.id);
            }
        }
        drop(waiting);
        self.waiters.count.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("gateway_waiters").decrement(1.0);
    }
}

/// Follows the live exchange for ever.
pub async fn follow(app: App) {
    let mut events = live::subscribe(app.amqp_settings("gateway live"));
    let mut slow_poll = tokio::time::interval(SLOW_POLL_INTERVAL);
    slow_poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut named = Vec::new();
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                let mut missed = take_in(&app, event, &mut named);
                while let Ok(event) = events.try_recv() {
                    missed |= take_in(&app, event, &mut named);
                }
                named = if missed { app.waiters.all() } else { app.waiters.awaited(named) };
            }
            _ = slow_poll.tick() => named = app.waiters.all(),
        }
        named.sort_unstable();
        named.dedup();
        hand_out(&app.waiters, &app.db, &named).await;
    }
}

/// Notes what an event says; answers whether something may have been missed.
fn take_in(app: &App, event: LiveEvent, named: &mut Vec<Uuid>) -> bool {
    match event {
        LiveEvent::Message(message) => {
            app.auth.revoke_sids(&message.revoked_sids);
            named.extend(message.operations.iter().map(|operation| operation.id));
            false
        }
        LiveEvent::Connected => {
            let app = app.clone();
            tokio::spawn(async move {
                if let Err(error) = app.auth.load_revocations(&app.db).await {
                    tracing::warn!(%error, "revoked sign-ins cannot be read now");
                }
            });
            true
        }
    }
}

async fn hand_out(waiters: &Waiters, db: &PgPool, ids: &[Uuid]) {
    for ids in ids.chunks(IDS_MAX) {
        match Settled::read_all(db, ids).await {
            Ok(settled) => settled.iter().for_each(|settled| waiters.wake(settled)),
            // They stay registered: the next poll reads them.
            Err(error) => return tracing::warn!(%error, "settled operations cannot be read now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_up_when_its_holder_goes() {
        let waiters = Waiters::new(2, CancellationToken::new());
        let (first, second) = (waiters.register(Uuid::nil()), waiters.register(Uuid::nil()));
        assert!(first.is_some() && second.is_some() && waiters.register(Uuid::max()).is_none());
        drop(first);
        assert_eq!(waiters.all(), [Uuid::nil()]);
        drop(second);
        assert!(waiters.all().is_empty());
        assert!(waiters.register(Uuid::max()).is_some());
    }
}
