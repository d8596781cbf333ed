//! Long polls: the clients that wait for operations. A waiter costs an entry in a map until it is notified, by a live
//! message or by a sweep whose pause doubles.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::operations::SettledOperation;
use crate::http::request_context;

/// By operation.
type Waiting = HashMap<Uuid, Awaited>;

/// All waiting clients, by operation.
pub struct Waiters {
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    count: AtomicUsize,
    count_max: usize,
    sweep_pause: Duration,
    draining: CancellationToken,
}

/// One operation that is awaited.
struct Awaited {
    /// Each waiting client, under a number of its own.
    clients: Vec<(u64, oneshot::Sender<SettledOperation>)>,
    sweep_at: Instant,
    pause: Duration,
}

/// One client's wait for an operation; ends when dropped.
pub struct Waiter<'a> {
    waiters: &'a Waiters,
    id: Uuid,
    number: u64,
    settled: oneshot::Receiver<SettledOperation>,
}

impl Waiters {
    /// An empty map for at most `count_max` clients, none of whom waits longer than until `draining`. An operation without
    /// a live message is read after `sweep_pause`, then after twice as long, and so on.
    pub fn new(count_max: usize, sweep_pause: Duration, draining: CancellationToken) -> Self {
        Self {
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            count_max,
            sweep_pause,
            draining,
        }
    }

    /// Begins to wait. Register first, then publish or query: an operation that settles in between is not missed. `None`
    /// where too many wait already; the client then gets `pending` and asks again.
    pub fn register(&self, id: Uuid) -> Option<Waiter<'_>> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.count_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            metrics::counter!("gateway_shed_total", "reason" => "waiters").increment(1);
            return None;
        }
        let (sender, settled) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let pause = self.sweep_pause;
        let fresh = || Awaited { clients: Vec::with_capacity(1), sweep_at: Instant::now() + pause, pause };
        self.lock().entry(id).or_insert_with(fresh).clients.push((number, sender));
        metrics::gauge!("gateway_waiters").increment(1.0);
        Some(Waiter { waiters: self, id, number, settled })
    }

    /// Returns those of these ids that somebody waits for.
    pub(super) fn awaited(&self, mut ids: Vec<Uuid>) -> Vec<Uuid> {
        let waiting = self.lock();
        ids.retain(|id| waiting.contains_key(id));
        ids
    }

    /// Returns the operations whose sweep is due, and postpones their next one.
    pub(super) fn due(&self, now: Instant) -> Vec<Uuid> {
        let mut waiting = self.lock();
        let due = waiting.iter_mut().filter(|(_, awaited)| awaited.sweep_at <= now);
        let postponed = due.map(|(id, awaited)| {
            awaited.pause *= 2;
            awaited.sweep_at = now + awaited.pause;
            *id
        });
        postponed.collect()
    }

    /// Makes every sweep due: live messages may have been missed.
    pub(super) fn all_due(&self) {
        let now = Instant::now();
        self.lock().values_mut().for_each(|awaited| awaited.sweep_at = now);
    }

    /// Wakes all who wait for this operation; `how` they were woken is a label of the metric.
    pub(super) fn wake(&self, settled: SettledOperation, how: &'static str) {
        let Some(awaited) = self.lock().remove(&settled.id) else { return };
        metrics::counter!("gateway_waits_told_total", "how" => how).increment(awaited.clients.len() as u64);
        for (_, sender) in awaited.clients {
            // The client may have gone in the meantime.
            let _ = sender.send(settled.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Waits until the operation is settled, at most this long. The request gives its permit back meanwhile.
    pub async fn settled(mut self, timeout: Duration) -> Option<SettledOperation> {
        request_context::release_permit();
        tokio::select! {
            settled = &mut self.settled => settled.ok(),
            () = tokio::time::sleep(timeout) => None,
            () = self.waiters.draining.cancelled() => None,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        if let Some(awaited) = waiting.get_mut(&self.id) {
            awaited.clients.retain(|(number, _)| *number != self.number);
            if awaited.clients.is_empty() {
                waiting.remove(&self.id);
            }
        }
        drop(waiting);
        self.waiters.count.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("gateway_waiters").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    #[test]
    fn a_wait_ends_when_its_client_goes() {
        let waiters = Waiters::new(2, PAUSE, CancellationToken::new());
        let (first, second) = (waiters.register(Uuid::nil()), waiters.register(Uuid::nil()));
        assert!(first.is_some() && second.is_some() && waiters.register(Uuid::max()).is_none());
        drop(first);
        assert_eq!(waiters.awaited(vec![Uuid::nil(), Uuid::max()]), [Uuid::nil()]);
        drop(second);
        assert!(waiters.awaited(vec![Uuid::nil()]).is_empty());
        assert!(waiters.register(Uuid::max()).is_some());
    }

    #[test]
    fn nothing_is_read_before_the_pause_and_ever_less_often_afterwards() {
        let waiters = Waiters::new(2, PAUSE, CancellationToken::new());
        let _waiter = waiters.register(Uuid::nil());
        let since = Instant::now();
        let due = |seconds: f32| waiters.due(since + Duration::from_secs_f32(seconds)).len();
        assert_eq!([4.9, 5.1, 10.0, 15.0, 15.2, 35.1, 35.3].map(due), [0, 1, 0, 0, 1, 0, 1]);
        waiters.all_due();
        assert_eq!(due(36.0), 1);
    }
}
