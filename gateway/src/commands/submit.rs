//! Submitting commands: validate, derive the operation's id, publish, await the broker's confirm, answer 202.
//!
//! Invariant: no 202 before the confirm. A command that is not known to be durable is a 503, to be sent again under the
//! same key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use contracts::{
    Command, NewEvent, Principal, ProblemType,
    amqp::{PublishError, Publisher},
    envelope::Origin,
    ids::{self, OperationId, OperationIds},
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    fault_injection::Faults,
    idempotency::{Answered, RecentKeys},
};
use crate::{
    config::GatewaySettings,
    http::{ApiError, ApiResult, middleware::REPLAYED, prefer::PREFERENCE_APPLIED, request_context},
    live::{
        Live, Waiter,
        operations::{OperationView, SettledOperation},
    },
};

const SOURCE: &str = "/gateway";
/// Room for the headers that the middleware adds as well.
const ANSWER_HEADERS: usize = 16;

/// The way of commands to the workers; one for the process, cheap to clone.
#[derive(Clone)]
pub struct Commands(Arc<Inner>);

struct Inner {
    publisher: Publisher,
    ids: OperationIds,
    recent_keys: RecentKeys,
    live: Arc<Live>,
    faults: Faults,
}

/// A command and the id of its operation.
pub(super) struct Submission<C> {
    pub(super) id: Uuid,
    /// `true` where the id was derived from an `Idempotency-Key`.
    pub(super) is_keyed: bool,
    pub(super) principal: Principal,
    /// `Prefer: wait`.
    pub(super) wait: Option<Duration>,
    pub(super) command: C,
}

/// The operations of several commands, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Operations {
    items: Vec<OperationView>,
}

impl Commands {
    /// Commands leave through this publisher; awaited results come from `live`.
    pub fn new(settings: &GatewaySettings, publisher: Publisher, ids: OperationIds, live: Arc<Live>) -> Self {
        let recent_keys = RecentKeys::new(&settings.limits);
        Self(Arc::new(Inner { publisher, ids, recent_keys, live, faults: Faults::new(settings) }))
    }

    /// Returns the codec of operation ids.
    pub fn ids(&self) -> &OperationIds {
        &self.0.ids
    }

    /// Publishes a command that a synchronous write owes, under an id derived from that write; returns the operation's
    /// id. Repeating it has no further effect.
    ///
    /// # Errors
    /// 503 where the command is not known to be durable.
    pub async fn publish_derived<C: Command>(
        &self,
        principal: Principal,
        (scope, key): (&str, &str),
        command: &C,
    ) -> ApiResult<String> {
        let origin = Origin {
            source: SOURCE,
            principal,
            accepted_at: Utc::now(),
            trace: request_context::trace().child(),
            parent: None,
        };
        let event = NewEvent::new(ids::keyed_id(scope, C::KIND, key), command, &origin);
        let operation_id = self.0.ids.encode(event.id, &event.fingerprint);
        self.0.publisher.publish(event).await?;
        Ok(operation_id)
    }

    /// Submits one command.
    pub(super) async fn submit<C: Command>(&self, submission: Submission<C>) -> ApiResult<Response> {
        let Submission { id, is_keyed, principal, wait, command } = submission;
        command.validate().map_err(ApiError::validation)?;
        let accepted_at = Utc::now();
        let event = event_of(id, &command, principal, accepted_at);
        let held = OperationId { id, fingerprint_prefix: event.fingerprint.prefix() };
        if let Some(before) = is_keyed.then(|| self.0.recent_keys.get(id)).flatten() {
            if before.fingerprint != event.fingerprint {
                return Err(ProblemType::IdempotencyKeyReused.into());
            }
            return Ok(self.replay(C::KIND, held, before, wait).await);
        }
        // Before the publish: an operation that is settled at once is not missed.
        let waiter = self.waiter(id, wait);
        let answered = Answered { fingerprint: event.fingerprint, accepted_at };
        self.publish(event).await?;
        if is_keyed {
            self.0.recent_keys.insert(id, answered);
        }
        let settled = settled_in_time(waiter, wait).await;
        Ok(answer(settled, held, self.pending(C::KIND, id, answered)))
    }

    /// Answers a repeated key as the first time, without publishing again.
    async fn replay(&self, kind: &str, held: OperationId, before: Answered, wait: Option<Duration>) -> Response {
        metrics::counter!("gateway_replays_total", "kind" => kind.to_owned()).increment(1);
        let waiter = self.waiter(held.id, wait);
        // It may have been settled before, and then no live message comes again.
        let mut settled = match &waiter {
            Some(_) => self.0.live.reader.operation(held.id).await.ok().flatten(),
            None => None,
        };
        if settled.is_none() {
            settled = settled_in_time(waiter, wait).await;
        }
        let mut response = answer(settled, held, self.pending(kind, held.id, before));
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }

    /// Submits several commands: all or, as far as the client knows, none. After a 503 the same request under the same
    /// key takes effect once.
    pub(super) async fn submit_all<C: Command>(
        &self,
        principal: Principal,
        wait: Option<Duration>,
        commands: Vec<(Uuid, C)>,
    ) -> ApiResult<Response> {
        let accepted_at = Utc::now();
        let mut errors = Vec::new();
        for (n, (_, command)) in commands.iter().enumerate() {
            for mut error in command.validate().err().unwrap_or_default() {
                error.field = format!("items[{n}].{}", error.field);
                errors.push(error);
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::validation(errors));
        }
        let waiters: Vec<_> = commands.iter().map(|(id, _)| self.waiter(*id, wait)).collect();
        let events: Vec<NewEvent> =
            commands.iter().map(|(id, command)| event_of(*id, command, principal, accepted_at)).collect();
        let accepted: Vec<_> = events.iter().map(|event| (event.id, event.fingerprint)).collect();
        self.publish_all(events).await?;
        let deadline = wait.map(|wait| Instant::now() + wait);
        let (mut items, mut all_settled) = (Vec::with_capacity(accepted.len()), wait.is_some());
        for ((id, fingerprint), waiter) in accepted.into_iter().zip(waiters) {
            let pending = self.pending(C::KIND, id, Answered { fingerprint, accepted_at });
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let held = OperationId { id, fingerprint_prefix: fingerprint.prefix() };
            items.push(match settled_in_time(waiter, left).await {
                Some(settled) => settled.view(pending.id, Some(held)),
                None => {
                    all_settled = false;
                    pending
                }
            });
        }
        let items = Json(Operations { items });
        if all_settled {
            return Ok(([(PREFERENCE_APPLIED, HeaderValue::from_static("wait"))], items).into_response());
        }
        Ok((StatusCode::ACCEPTED, items).into_response())
    }

    fn waiter(&self, id: Uuid, wait: Option<Duration>) -> Option<Waiter<'_>> {
        wait.and_then(|_| self.0.live.waiters.register(id))
    }

    fn pending(&self, kind: &str, id: Uuid, answered: Answered) -> OperationView {
        let id = self.0.ids.encode(id, &answered.fingerprint);
        OperationView::pending(id, Some(kind), Some(answered.accepted_at))
    }

    async fn publish(&self, event: NewEvent) -> Result<(), PublishError> {
        if self.0.faults.answers_before_the_confirm() {
            let publisher = self.0.publisher.clone();
            tokio::spawn(async move { publisher.publish(event).await });
            return Ok(());
        }
        timed(self.0.publisher.publish(event)).await
    }

    async fn publish_all(&self, events: Vec<NewEvent>) -> Result<(), PublishError> {
        timed(self.0.publisher.publish_all(events)).await
    }
}

fn event_of<C: Command>(id: Uuid, command: &C, principal: Principal, accepted_at: DateTime<Utc>) -> NewEvent {
    let origin = Origin { source: SOURCE, principal, accepted_at, trace: request_context::trace(), parent: None };
    NewEvent::new(id, command, &origin)
}

async fn timed<T>(publish: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let published = publish.await;
    metrics::histogram!("gateway_confirm_seconds").record(started.elapsed());
    published
}

async fn settled_in_time(waiter: Option<Waiter<'_>>, wait: Option<Duration>) -> Option<SettledOperation> {
    waiter?.settled(wait?).await
}

/// 200 with the settled operation where it came in time, else 202.
fn answer(settled: Option<SettledOperation>, held: OperationId, pending: OperationView) -> Response {
    if let Some(settled) = settled {
        let applied = [(PREFERENCE_APPLIED, HeaderValue::from_static("wait"))];
        return (applied, Json(settled.view(pending.id, Some(held)))).into_response();
    }
    let mut headers = HeaderMap::with_capacity(ANSWER_HEADERS);
    let location = HeaderValue::from_str(&pending.links.this).expect("base62 digits are a header value");
    headers.insert(header::LOCATION, location);
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    (StatusCode::ACCEPTED, headers, Json(pending)).into_response()
}
