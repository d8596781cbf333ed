//! The one way in for commands: validate, give the operation its id, publish, await the broker's confirm, answer 202.
//!
//! Invariant: no 202 before the confirm. What is not known to be durable is a 503, to be repeated under the same key.

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use contracts::{
    Command, Fingerprint, NewEvent, Principal, Problem, ProblemType,
    envelope::Origin,
    ids::{self, OperationId},
};
use uuid::Uuid;

use crate::{
    idempotency::Answered,
    live::Waiter,
    operations::{Links, OperationView, Settled, WAIT_SECONDS_MAX, location},
    problem_response::{ApiError, ApiResult},
    query::preferred_wait_seconds,
    request,
    state::App,
};

const SOURCE: &str = "/gateway";
const KEY_BYTES_MAX: usize = 255;
/// Room for those that the middleware adds as well.
const ANSWER_HEADERS: usize = 16;
/// Set on an answer that repeats an earlier one.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a command's request says besides its body.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `Idempotency-Key`: 1 to 255 visible ASCII characters.
    pub key: Option<String>,
    /// `Prefer: wait=N`.
    pub wait: Option<Duration>,
}

impl FromRequestParts<App> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> ApiResult<Self> {
        let key = parts.headers.get("idempotency-key").map(idempotency_key).transpose()?;
        let wait = preferred_wait_seconds(&parts.headers).filter(|seconds| *seconds > 0);
        Ok(Self { key, wait: wait.map(|seconds| Duration::from_secs(seconds.min(WAIT_SECONDS_MAX))) })
    }
}

fn idempotency_key(value: &HeaderValue) -> ApiResult<String> {
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    key.map(str::to_owned).ok_or_else(|| {
        ApiError::invalid_request(format!("`Idempotency-Key` must be 1 to {KEY_BYTES_MAX} visible ASCII characters."))
    })
}

impl Asked {
    /// The operation's id: the same for the same scope, route and key; new without a key.
    pub fn operation_id(&self, scope: &str, route: &str) -> Uuid {
        self.key.as_ref().map_or_else(ids::new_id, |key| ids::keyed_id(scope, route, key))
    }
}

/// Takes a command in. `scope` keeps the keys of different askers apart: the principal, or for a visitor the normalised
/// e-mail; `route` those of different addresses.
///
/// # Errors
/// 422 with every bad field, or where the key came before with another payload; 503 where the command is not known to be
/// durable.
pub async fn accept<C: Command>(
    app: &App,
    asked: Asked,
    principal: Principal,
    scope: &str,
    route: &str,
    command: C,
) -> ApiResult<Response> {
    command.validate().map_err(ApiError::validation)?;
    let id = asked.operation_id(scope, route);
    let accepted_at = Utc::now();
    let event = event_of(id, &command, principal, accepted_at);
    let held = OperationId { id, fingerprint_prefix: event.fingerprint.prefix() };
    if let Some(before) = asked.key.as_ref().and_then(|_| app.recent_keys.get(id)) {
        if before.fingerprint != event.fingerprint {
            return Err(ProblemType::IdempotencyKeyReused.into());
        }
        let waiter = asked.wait.and_then(|_| app.waiters.register(id));
        metrics::counter!("gateway_replays_total", "kind" => C::KIND).increment(1);
        // It may have been settled before, and then nobody tells of it again.
        let settled = match &waiter {
            Some(_) => app.reader.operation(id).await.ok().flatten(),
            None => None,
        };
        let view = accepted(app, C::KIND, id, before.fingerprint, before.accepted_at);
        let mut response = answer(&asked, held, settled, waiter, view).await;
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        return Ok(response);
    }
    // Before the publish: what is settled at once is not missed.
    let waiter = asked.wait.and_then(|_| app.waiters.register(id));
    let answered = Answered { fingerprint: event.fingerprint, accepted_at };
    publish(app, event).await?;
    if asked.key.is_some() {
        app.recent_keys.insert(id, answered);
    }
    let view = accepted(app, C::KIND, id, answered.fingerprint, accepted_at);
    Ok(answer(&asked, held, None, waiter, view).await)
}

/// Takes several commands in at once; all or, as far as the client knows, none: after a 503 the same request under the
/// same key takes effect once. The items are in the order asked.
///
/// # Errors
/// 422 with every bad field, each by `items[n].…`; 503 as [`accept`].
pub async fn accept_all<C: Command>(
    app: &App,
    principal: Principal,
    commands: impl ExactSizeIterator<Item = (Uuid, C)>,
) -> ApiResult<Vec<OperationView>> {
    let accepted_at = Utc::now();
    let mut wrong = Vec::new();
    let mut events = Vec::with_capacity(commands.len());
    for (n, (id, command)) in commands.enumerate() {
        if let Err(errors) = command.validate() {
            wrong.extend(errors.into_iter().map(|mut error| {
                error.field = format!("items[{n}].{}", error.field);
                error
            }));
        }
        events.push(event_of(id, &command, principal, accepted_at));
    }
    if !wrong.is_empty() {
        return Err(ApiError::validation(wrong));
    }
    let views = events.iter().map(|event| accepted(app, C::KIND, event.id, event.fingerprint, accepted_at)).collect();
    let started = Instant::now();
    let published = app.publisher.publish_all(events).await;
    metrics::histogram!("gateway_confirm_seconds").record(started.elapsed());
    published?;
    Ok(views)
}

fn event_of<C: Command>(id: Uuid, command: &C, principal: Principal, accepted_at: DateTime<Utc>) -> NewEvent {
    let origin = Origin { source: SOURCE, principal, accepted_at, trace: request::trace(), parent: None };
    NewEvent::new(id, command, &origin)
}

async fn publish(app: &App, event: NewEvent) -> ApiResult<()> {
    #[cfg(feature = "fault-injection")]
    if app.settings.planted_bug == "early_202" {
        let publisher = app.publisher.clone();
        tokio::spawn(async move { publisher.publish(event).await });
        return Ok(());
    }
    let started = Instant::now();
    let published = app.publisher.publish(event).await;
    metrics::histogram!("gateway_confirm_seconds").record(started.elapsed());
    Ok(published?)
}

fn accepted(app: &App, kind: &str, id: Uuid, fingerprint: Fingerprint, accepted_at: DateTime<Utc>) -> OperationView {
    let id = app.ids.encode(id, &fingerprint);
    OperationView {
        links: Links { this: location(&id) },
        id,
        kind: Some(kind.to_owned()),
        state: "pending".to_owned(),
        accepted_at: Some(accepted_at),
        settled_at: None,
        result: None,
        problem: None,
    }
}

/// 200 with the settled operation where the client waits and it comes in time, else 202. What was published just now is
/// told live, also where it had been settled long before: no query until then.
async fn answer(
    asked: &Asked,
    held: OperationId,
    settled: Option<Settled>,
    waiter: Option<Waiter<'_>>,
    view: OperationView,
) -> Response {
    let settled = match (settled, asked.wait, waiter) {
        (None, Some(wait), Some(waiter)) => waiter.settled(wait).await,
        (settled, ..) => settled,
    };
    if let Some(settled) = settled {
        let applied = HeaderValue::from_static("wait");
        return ([(HeaderName::from_static("preference-applied"), applied)], Json(settled.view(view.id, Some(held))))
            .into_response();
    }
    let mut headers = HeaderMap::with_capacity(ANSWER_HEADERS);
    let location = HeaderValue::from_str(&view.links.this).expect("base62 digits are a header value");
    headers.insert(header::LOCATION, location);
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    (StatusCode::ACCEPTED, headers, Json(view)).into_response()
}

/// The refusal of a field that only the gateway's own knowledge condemns.
pub fn refused(problem_type: ProblemType, field: &str, code: &str, message: &str) -> ApiError {
    Problem::new(problem_type).detail(message).field(field, code, message).into()
}
