//! `GET /v1/events`: what happens to the signed-in user, as Server-Sent Events (WHATWG HTML §9.2).
//!
//! Nothing is lost, some may come twice. `id` is a *position*: the moment, by the database's clock, until which everything
//! was sent. `settled_at` and `created_at` are the beginning of a transaction, so rows become visible out of their order;
//! therefore whoever comes back with a position is read from a while before it, and from then on each stream drops what it
//! sent itself. The position moves with the sweeps that find what a lost live message left behind.

mod feed;

use std::{convert::Infallible, time::Duration};

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
    auth::Caller,
    live::Subscription,
    problem_response::{ApiError, ApiResult},
    state::App,
};
use feed::{Feed, Start};

/// What was missed for longer than this is not sent again: the lists have it.
const REPLAY_MAX: TimeDelta = TimeDelta::days(1);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks reverse proxies to pass every event on at once.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The routes of this module.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(listen))
}

/// What happens to me, as it happens
///
/// Server-Sent Events: `operation` (as `GET /v1/operations/{id}` gives it), `notification` (as the list gives it), and
/// `reset` where `Last-Event-ID` is unknown or older than a day: read the lists anew. Come back with the last `id` as
/// `Last-Event-ID` and nothing is lost; the same may come twice, also within one stream, so go by the `id` in the data. A
/// comment comes every 15 seconds or so. The stream ends with the access token: come back with a new one.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The `id` that came last, to go on from there")),
    responses((status = 200, description = "Events without end", content_type = "text/event-stream", body = String)),
    security(("bearer" = []))
)]
async fn listen(State(app): State<App>, caller: Caller, headers: HeaderMap) -> ApiResult<Response> {
    // Before the clock is read: what is settled from now on is told.
    let subscription = Subscription::open(&app, &caller).ok_or_else(ApiError::overloaded)?;
    let now = app.reader.now().await?;
    let start = start(headers.get(LAST_EVENT_ID), now);
    let lifetime = Duration::from_secs(caller.expires_at.saturating_sub(Utc::now().timestamp().unsigned_abs()));
    let feed = Box::new(Feed::new(subscription, caller, start, lifetime));
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

/// Where a stream begins.
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
