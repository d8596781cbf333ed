//! Who listens to events. A stream is told *that* there is something, and fetches it when its client has taken what came
//! before: a client that reads slowly costs a few ids, whatever happens meanwhile.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use contracts::{Role, amqp::LiveMessage};
use futures::task::AtomicWaker;
use uuid::Uuid;

use crate::{auth::Caller, state::App};

/// Ids kept for a stream that does not fetch them; beyond it what was missed is read by time.
const IDS_MAX: usize = 128;

/// Everybody who listens, by user.
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

/// What there is for one stream.
struct Inbox {
    role: Role,
    sid: Uuid,
    news: Mutex<News>,
    waker: AtomicWaker,
}

/// What happened since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Operations that were settled.
    pub operations: Vec<Uuid>,
    /// There are notifications.
    pub notifications: bool,
    /// There may be more than was noted.
    pub behind: bool,
    /// The sign-in ended, or the process is about to.
    pub ended: bool,
}

/// A place among those who listen, given up when dropped.
pub struct Subscription {
    app: App,
    user_id: Uuid,
    inbox: Arc<Inbox>,
}

impl Streams {
    /// Nobody yet; at most so many.
    pub fn new(count_max: usize) -> Self {
        Self { open: Mutex::default(), count_max }
    }

    /// Ends all, now and in future: the process drains.
    pub fn close(&self) {
        let mut open = self.lock();
        open.draining = true;
        open.by_user.values().flatten().for_each(|inbox| inbox.note(|news| news.ended = true));
    }

    /// Whatever a live message says of those who listen here.
    pub(super) fn tell(&self, message: &LiveMessage) {
        let open = self.lock();
        if open.by_user.is_empty() {
            return;
        }
        for operation in &message.operations {
            let inboxes = operation.user.and_then(|user| open.by_user.get(&user));
            inboxes.into_iter().flatten().for_each(|inbox| inbox.note(|news| news.settled(operation.id)));
        }
        for user in &message.notified {
            let inboxes = open.by_user.get(user).into_iter().flatten();
            inboxes.for_each(|inbox| inbox.note(|news| news.notifications = true));
        }
        if !message.notified_roles.is_empty() {
            let inboxes = open.by_user.values().flatten().filter(|inbox| message.notified_roles.contains(&inbox.role));
            inboxes.for_each(|inbox| inbox.note(|news| news.notifications = true));
        }
    }

    /// Messages may have been missed.
    pub(super) fn all_behind(&self) {
        self.lock().by_user.values().flatten().for_each(|inbox| inbox.note(|news| news.behind = true));
    }

    /// Ends the streams of these sign-ins.
    pub(super) fn end_where(&self, is_over: impl Fn(Uuid) -> bool) {
        let open = self.lock();
        let over = open.by_user.values().flatten().filter(|inbox| is_over(inbox.sid));
        over.for_each(|inbox| inbox.note(|news| news.ended = true));
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
    /// Begins to listen; `None` where too many listen already, or the process drains. Subscribe first, then read: what is
    /// settled in between is not missed.
    pub fn open(app: &App, caller: &Caller) -> Option<Self> {
        let inbox =
            Arc::new(Inbox { role: caller.role, sid: caller.sid, news: Mutex::default(), waker: AtomicWaker::new() });
        if !app.streams.enter(caller.user_id, &inbox) {
            metrics::counter!("gateway_shed_total", "reason" => "streams").increment(1);
            return None;
        }
        metrics::gauge!("gateway_streams").increment(1.0);
        Some(Self { app: app.clone(), user_id: caller.user_id, inbox })
    }

    /// What the gateway knows.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Waits until there is something, and takes it.
    pub async fn news(&self) -> News {
        self.when(|news| *news != News::default()).await
    }

    /// Waits until the stream is to end.
    pub async fn ended(&self) {
        self.when(|news| news.ended).await;
    }

    async fn when(&self, there_is: impl Fn(&News) -> bool) -> News {
        poll_fn(|context| {
            self.inbox.waker.register(context.waker());
            let mut news = self.inbox.lock();
            if there_is(&news) { Poll::Ready(std::mem::take(&mut *news)) } else { Poll::Pending }
        })
        .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.app.streams.leave(self.user_id, &self.inbox);
        metrics::gauge!("gateway_streams").decrement(1.0);
    }
}

impl Inbox {
    fn note(&self, note: impl FnOnce(&mut News)) {
        note(&mut self.lock());
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
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
    fn who_does_not_fetch_is_behind_and_costs_nothing_more() {
        let mut news = News::default();
        (0..IDS_MAX as u128).for_each(|n| news.settled(Uuid::from_u128(n)));
        assert!(news.operations.len() == IDS_MAX && !news.behind);
        (0..10_000).for_each(|n| news.settled(Uuid::from_u128(n)));
        assert_eq!(news, News { behind: true, ..News::default() });
    }
}
