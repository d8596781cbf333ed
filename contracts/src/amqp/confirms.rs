//! Messages that were sent and await their confirm, each with its callers and the time it was sent at.

use std::{
    collections::BTreeMap,
    pin::Pin,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use lapin::{Confirmation, PublisherConfirm};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::publish_error::PublishError;

/// The result of publishing one event.
pub(super) type Published = Result<(), PublishError>;

/// One event's caller, and its permit to be in flight. Dropped unresolved, the caller learns that the outcome is
/// unknown.
pub(super) struct PendingConfirm {
    caller: Option<oneshot::Sender<Published>>,
    _in_flight: Option<OwnedSemaphorePermit>,
}

impl PendingConfirm {
    pub fn new(caller: oneshot::Sender<Published>, in_flight: OwnedSemaphorePermit) -> Self {
        Self { caller: Some(caller), _in_flight: Some(in_flight) }
    }

    #[cfg(test)]
    pub fn without_caller() -> Self {
        Self { caller: None, _in_flight: None }
    }

    pub fn resolve(mut self, result: Published) {
        if let Some(caller) = self.caller.take() {
            // The caller may have given up; the message was sent all the same.
            let _ = caller.send(result);
        }
    }
}

struct SentMessage {
    sent_at: Instant,
    callers: Vec<PendingConfirm>,
}

type Confirmed = (u64, lapin::Result<Confirmation>);

/// Messages that were sent and are not confirmed yet.
pub(super) struct Confirms {
    pending: FuturesUnordered<Pin<Box<dyn Future<Output = Confirmed> + Send>>>,
    /// By number, so in the order of sending.
    sent: BTreeMap<u64, SentMessage>,
    next_number: u64,
}

impl Confirms {
    pub fn new() -> Self {
        Self { pending: FuturesUnordered::new(), sent: BTreeMap::new(), next_number: 0 }
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    pub fn add(&mut self, confirm: PublisherConfirm, callers: Vec<PendingConfirm>) {
        let number = self.next_number;
        self.next_number += 1;
        self.sent.insert(number, SentMessage { sent_at: Instant::now(), callers });
        self.pending.push(Box::pin(async move { (number, confirm.await) }));
    }

    /// Waits for the next confirm and answers its callers; never resolves while nothing is outstanding.
    ///
    /// # Errors
    /// Where the channel ended; the outcome of everything outstanding is then unknown.
    pub async fn next(&mut self) -> lapin::Result<()> {
        let Some((number, confirmation)) = self.pending.next().await else {
            return std::future::pending().await;
        };
        let Some(message) = self.sent.remove(&number) else {
            return confirmation.map(|_| ());
        };
        let (published, channel) = match confirmation {
            Ok(Confirmation::Ack(None)) => {
                metrics::histogram!("amqp_confirm_seconds").record(message.sent_at.elapsed().as_secs_f64());
                (Ok(()), Ok(()))
            }
            Ok(other) => {
                tracing::warn!(confirmation = ?other, "the broker did not accept a message");
                (Err(PublishError::Unknown), Ok(()))
            }
            Err(error) => (Err(PublishError::Unknown), Err(error)),
        };
        message.callers.into_iter().for_each(|caller| caller.resolve(published));
        channel
    }

    /// Waits until nothing is outstanding or the channel ended, at most this long.
    pub async fn drained(&mut self, at_most: Duration) {
        let drained = async { while self.len() > 0 && self.next().await.is_ok() {} };
        // The callers of what is still outstanding are answered when the confirms are abandoned.
        let _ = tokio::time::timeout(at_most, drained).await;
    }

    /// How long the oldest has been outstanding; zero where none is.
    pub fn oldest(&self) -> Duration {
        self.sent.values().next().map_or(Duration::ZERO, |oldest| oldest.sent_at.elapsed())
    }

    /// Answers every caller that the outcome is unknown; the confirms themselves stay outstanding.
    pub fn abandon(&mut self) {
        for message in self.sent.values_mut() {
            message.callers.drain(..).for_each(|caller| caller.resolve(Err(PublishError::Unknown)));
        }
    }
}
