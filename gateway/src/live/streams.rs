//! Event streams that are open. A stream is notified *that* there is something, and reads it once its client has taken what
//! came before: a client that reads slowly costs a few ids, whatever happens meanwhile.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use contracts::{Role, amqp::LiveMessage};
use futures::task::AtomicWaker;
use uuid::Uuid;

use super::Live;
use crate::auth::Caller;

/// Ids kept for a stream whose client does not read; beyond it the stream catches up by time.
const IDS_MAX: usize = 128;

/// All open streams, by user.
pub struct Streams {
    open: Mutex<Open>,
    count_max: usize,
}

#[derive(Default)]
struct Open {
    by_user: HashMap<Uuid, Vec<Arc<Inbox>>>,
    count: usize,
    draining: bool,
}

/// The pending update of one stream.
struct Inbox {
    role: Role,
    sid: Uuid,
    update: Mutex<StreamUpdate>,
    waker: AtomicWaker,
}

/// Everything that happened for a stream since it last looked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StreamUpdate {
    /// Operations that were settled.
    pub operations: Vec<Uuid>,
    /// There are notifications.
    pub notifications: bool,
    /// There may be more than was noted: read by time.
    pub behind: bool,
    /// The sign-in ended, or the process drains.
    pub ended: bool,
}

/// One open stream; closed when dropped.
pub struct Subscription {
    live: Arc<Live>,
    user_id: Uuid,
    inbox: Arc<Inbox>,
}

impl Streams {
    /// No streams yet, and at most so many.
    pub fn new(count_max: usize) -> Self {
        Self { open: Mutex::default(), count_max }
    }

    /// Ends all streams and admits no more: the process drains.
    pub fn close(&self) {
        let mut open = self.lock();
        open.draining = true;
        open.by_user.values().flatten().for_each(|inbox| inbox.note(|update| update.ended = true));
    }

    /// Notifies the streams that a live message concerns.
    pub(super) fn notify(&self, message: &LiveMessage) {
        let open = self.lock();
        if open.by_user.is_empty() {
            return;
        }
        for operation in &message.operations {
            let inboxes = operation.user.and_then(|user| open.by_user.get(&user));
            inboxes.into_iter().flatten().for_each(|inbox| inbox.note(|update| update.settled(operation.id)));
        }
        for user in &message.notified {
            let inboxes = open.by_user.get(user).into_iter().flatten();
            inboxes.for_each(|inbox| inbox.note(|update| update.notifications = true));
        }
        if !message.notified_roles.is_empty() {
            let inboxes = open.by_user.values().flatten().filter(|inbox| message.notified_roles.contains(&inbox.role));
            inboxes.for_each(|inbox| inbox.note(|update| update.notifications = true));
        }
    }

    /// Notes for every stream that messages may have been missed.
    pub(super) fn all_behind(&self) {
        self.lock().by_user.values().flatten().for_each(|inbox| inbox.note(|update| update.behind = true));
    }

    /// Ends the streams of these sign-ins.
    pub(super) fn end_where(&self, is_over: impl Fn(Uuid) -> bool) {
        let open = self.lock();
        let over = open.by_user.values().flatten().filter(|inbox| is_over(inbox.sid));
        over.for_each(|inbox| inbox.note(|update| update.ended = true));
    }

    fn enter(&self, user_id: Uuid, inbox: &Arc<Inbox>) -> bool {
        let mut open = self.lock();
        if open.draining || open.count >= self.count_max {
            return false;
        }
        open.count += 1;
        open.by_user.entry(user_id).or_insert_with(|| Vec::with_capacity(1)).push(Arc::clone(inbox));
        true
    }

    fn leave(&self, user_id: Uuid, inbox: &Arc<Inbox>) {
        let mut open = self.lock();
        open.count -= 1;
        if let Some(inboxes) = open.by_user.get_mut(&user_id) {
            inboxes.retain(|other| !Arc::ptr_eq(other, inbox));
            if inboxes.is_empty() {
                open.by_user.remove(&user_id);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Opens a stream; `None` where too many are open already, or the process drains. Subscribe first, then read:
    /// whatever is settled in between is not missed.
    pub fn open(live: &Arc<Live>, caller: &Caller) -> Option<Self> {
        let inbox =
            Arc::new(Inbox { role: caller.role, sid: caller.sid, update: Mutex::default(), waker: AtomicWaker::new() });
        if !live.streams.enter(caller.user_id, &inbox) {
            metrics::counter!("gateway_shed_total", "reason" => "streams").increment(1);
            return None;
        }
        metrics::gauge!("gateway_streams").increment(1.0);
        Some(Self { live: live.clone(), user_id: caller.user_id, inbox })
    }

    /// Returns the reader and the intervals.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Waits for an update, and takes it.
    pub async fn next_update(&self) -> StreamUpdate {
        self.when(|update| *update != StreamUpdate::default()).await
    }

    /// Waits until the stream is to end.
    pub async fn ended(&self) {
        self.when(|update| update.ended).await;
    }

    async fn when(&self, there_is: impl Fn(&StreamUpdate) -> bool) -> StreamUpdate {
        poll_fn(|context| {
            self.inbox.waker.register(context.waker());
            let mut update = self.inbox.lock();
            if there_is(&update) { Poll::Ready(std::mem::take(&mut *update)) } else { Poll::Pending }
        })
        .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.live.streams.leave(self.user_id, &self.inbox);
        metrics::gauge!("gateway_streams").decrement(1.0);
    }
}

impl Inbox {
    fn note(&self, note: impl FnOnce(&mut StreamUpdate)) {
        note(&mut self.lock());
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, StreamUpdate> {
        self.update.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamUpdate {
    fn settled(&mut self, id: Uuid) {
        if self.behind {
            return;
        }
        if self.operations.len() < IDS_MAX {
            self.operations.push(id);
        } else {
            self.operations = Vec::new();
            self.behind = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_not_read_is_behind_and_costs_nothing_more() {
        let mut update = StreamUpdate::default();
        (0..IDS_MAX as u128).for_each(|n| update.settled(Uuid::from_u128(n)));
        assert!(update.operations.len() == IDS_MAX && !update.behind);
        (0..10_000).for_each(|n| update.settled(Uuid::from_u128(n)));
        assert_eq!(update, StreamUpdate { behind: true, ..StreamUpdate::default() });
    }
}
