//! Who waits for which confirm, and how long already.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use lapin::{Confirmation, PublisherConfirm};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::publisher::PublishError;

/// One caller. Dropping it unanswered tells the caller that the outcome is unknown.
pub(super) struct Waiter {
    answer: Option<oneshot::Sender<Result<(), PublishError>>>,
    _in_flight: Option<OwnedSemaphorePermit>,
}

impl Waiter {
    pub fn new(answer: oneshot::Sender<Result<(), PublishError>>, in_flight: OwnedSemaphorePermit) -> Self {
        Self { answer: Some(answer), _in_flight: Some(in_flight) }
    }

    #[cfg(test)]
    pub fn nobody() -> Self {
        Self { answer: None, _in_flight: None }
    }

    pub fn answer(mut self, result: Result<(), PublishError>) {
        if let Some(answer) = self.answer.take() {
            // The caller may have given up; the message is on its way all the same.
            let _ = answer.send(result);
        }
    }
}

struct Outstanding {
    sent_at: Instant,
    waiters: Vec<Waiter>,
}

type Confirmed = (u64, lapin::Result<Confirmation>);

/// Messages that were sent and are not confirmed yet.
pub(super) struct Confirms {
    pending: FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = Confirmed> + Send>>>,
    outstanding: std::collections::BTreeMap<u64, Outstanding>,
    next: u64,
}

impl Confirms {
    pub fn new() -> Self {
        Self { pending: FuturesUnordered::new(), outstanding: std::collections::BTreeMap::new(), next: 0 }
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    pub fn add(&mut self, confirm: PublisherConfirm, waiters: Vec<Waiter>) {
        let number = self.next;
        self.next += 1;
        self.outstanding.insert(number, Outstanding { sent_at: Instant::now(), waiters });
        self.pending.push(Box::pin(async move { (number, confirm.await) }));
    }

    /// Waits for the next confirm and answers its callers; never resolves while nothing is outstanding.
    ///
    /// # Errors
    /// Where the channel ended; all that is outstanding is then unknown.
    pub async fn next(&mut self) -> lapin::Result<()> {
        let Some((number, confirmation)) = self.pending.next().await else {
            return std::future::pending().await;
        };
        let Some(outstanding) = self.outstanding.remove(&number) else {
            return confirmation.map(|_| ());
        };
        let result = match confirmation {
            Ok(Confirmation::Ack(None)) => {
                metrics::histogram!("amqp_confirm_seconds").record(outstanding.sent_at.elapsed().as_secs_f64());
                Ok(())
            }
            Ok(other) => {
                tracing::warn!(confirmation = ?other, "the broker did not take a message");
                Err(PublishError::Unknown)
            }
            Err(error) => {
                outstanding.waiters.into_iter().for_each(|waiter| waiter.answer(Err(PublishError::Unknown)));
                return Err(error);
            }
        };
        outstanding.waiters.into_iter().for_each(|waiter| waiter.answer(result));
        Ok(())
    }

    /// Waits until nothing is outstanding or the channel ended, at most this long.
    pub async fn drained(&mut self, at_most: Duration) {
        let drained = async { while self.len() > 0 && self.next().await.is_ok() {} };
        // What is late then is unknown, and its callers are told so when the confirms are abandoned.
        let _ = tokio::time::timeout(at_most, drained).await;
    }

    /// How long the oldest has been waiting.
    pub fn oldest(&self) -> Duration {
        self.outstanding.values().next().map_or(Duration::ZERO, |oldest| oldest.sent_at.elapsed())
    }

    /// Tells everybody who waits that the outcome is unknown, without giving the confirms up.
    pub fn abandon(&mut self) {
        for outstanding in self.outstanding.values_mut() {
            outstanding.waiters.drain(..).for_each(|waiter| waiter.answer(Err(PublishError::Unknown)));
        }
    }
}
