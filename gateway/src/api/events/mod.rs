//! `GET /v1/events`: everything that happens to the signed-in user, as Server-Sent Events (WHATWG HTML §9.2).
//!
//! Nothing is lost, some may come twice. `id` is a *position*: the moment, by the database's clock, until which everything
//! was sent. `settled_at` and `created_at` are the beginning of a transaction, so rows become visible out of their order;
//! therefore a client that comes back with a position is served from a while before it, and each stream drops what it
//! sent itself. The position moves with the sweeps that find rows whose live message was lost.

mod feed;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::Caller,
    commands::Commands,
    http::{ApiError, ApiResult},
    live::{Live, Subscription},
};
use feed::{Feed, Start};

/// The longest gap that is replayed; older rows are in the lists.
const REPLAY_MAX: TimeDelta = TimeDelta::days(1);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks reverse proxies to pass every event on at once.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(listen))
}

/// Everything that happens to me, as it happens
///
/// Server-Sent Events: `operation` (as `GET /v1/operations/{id}` gives it), `notification` (as the list gives it), and
/// `reset` where `Last-Event-ID` is unknown or older than a day: read the lists anew. Come back with the last `id` as
/// `Last-Event-ID` and nothing is lost; the same may come twice, also within one stream, so go by the `id` in the data. A
/// comment comes every 15 seconds or so. The stream ends with the access token: come back with a new one.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The `id` that came last, to go on from there")),
    responses((status = 200, description = "Events without end", content_type = "text/event-stream", body = String)),
    security(("bearer" = []))
)]
async fn listen(
    State(live): State<Arc<Live>>,
    State(commands): State<Commands>,
    caller: Caller,
    headers: HeaderMap,
) -> ApiResult<Response> {
    // Before the clock is read: whatever is settled from now on is notified.
    let subscription = Subscription::open(&live, &caller).ok_or_else(ApiError::overloaded)?;
    let now = live.reader.now().await?;
    let start = start(headers.get(LAST_EVENT_ID), now);
    let lifetime = Duration::from_secs(caller.expires_at.saturating_sub(Utc::now().timestamp().unsigned_abs()));
    let feed = Box::new(Feed::new(subscription, commands.ids().clone(), caller, start, lifetime));
    let events = stream::unfold(feed, |mut feed| async move {
        let events = feed.next().await?;
        Some((Ok::<_, Infallible>(events), feed))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (UNBUFFERED, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// The beginning of a stream.
fn start(last_event_id: Option<&HeaderValue>, now: DateTime<Utc>) -> Start {
    let Some(id) = last_event_id else { return Start::Now(now) };
    match id.to_str().ok().and_then(position) {
        Some(position) if position > now - REPLAY_MAX => Start::From(position.min(now)),
        _ => Start::Reset(now),
    }
}

/// A position, as an event's `id`.
fn event_id(position: DateTime<Utc>) -> i64 {
    position.timestamp_micros()
}

fn position(id: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(id.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_on_where_the_last_one_ended_unless_that_is_too_long_ago_or_nonsense() {
        let now = DateTime::from_timestamp(1_767_225_600, 0).expect("in range");
        let begin = |id: &str| start(Some(&HeaderValue::from_str(id).expect("ASCII")), now);
        let minute_ago = now - TimeDelta::minutes(1);
        assert_eq!(begin(&event_id(minute_ago).to_string()), Start::From(minute_ago));
        assert_eq!(begin(&event_id(now + TimeDelta::days(9)).to_string()), Start::From(now));
        assert_eq!(begin(&event_id(now - TimeDelta::days(2)).to_string()), Start::Reset(now));
        for nonsense in ["", "op_1", "-9223372036854775808", "99999999999999999999"] {
            assert_eq!(begin(nonsense), Start::Reset(now), "{nonsense}");
        }
        assert_eq!(start(None, now), Start::Now(now));
    }
}
