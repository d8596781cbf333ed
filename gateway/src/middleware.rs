//! What every request passes: its trace, a place among those in hand or a 503 at once, a limit in time, a caught panic,
//! the security headers, one count and one log line.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{LazyLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use contracts::{Problem, ProblemType, TraceParent};
use futures::FutureExt;
use metrics::{Counter, Histogram};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    config::Settings, ingest::REPLAYED, operations::WAIT_SECONDS_MAX, problem_response::ApiError,
    query::preferred_wait_seconds, request, state::App,
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Set unless a handler set its own. Only JSON is served but for `/docs`, so nothing may be loaded from an answer.
static SECURITY_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Takes one request through.
pub async fn handle(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let given = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse::<TraceParent>().ok());
    let trace = given.map_or_else(TraceParent::new, |given| given.child());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let place = app.places.clone().try_acquire_owned();
    let shed = place.is_err();
    let at_most = app.settings.request_timeout() + asked_wait(&request);
    let work = async {
        if shed {
            metrics::counter!("gateway_shed_total", "reason" => "requests").increment(1);
            return ApiError::overloaded().into_response();
        }
        limited(at_most, next.run(request)).await
    };
    let mut response = request::scope(trace, place.ok(), work).await;
    if let Ok(value) = HeaderValue::from_bytes(&trace.encode()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    secure(&app.settings, &mut response);
    note(&method, route.as_ref().map_or("unmatched", MatchedPath::as_str), &trace, &response, started.elapsed());
    response
}

/// Which web pages may call, and what they may read of the answer.
pub fn cors(settings: &Settings) -> CorsLayer {
    let origins = settings.cors.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("prefer"),
            HeaderName::from_static("last-event-id"),
            TRACEPARENT,
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER, header::ETAG, REPLAYED, TRACEPARENT])
        .max_age(Duration::from_secs(3_600))
}

async fn limited(at_most: Duration, work: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(at_most, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!("a handler panicked");
            ApiError::from(ProblemType::Internal).into_response()
        }
        Err(_) => {
            metrics::counter!("gateway_shed_total", "reason" => "timeout").increment(1);
            let detail =
                "The request took too long. Send it again with the same Idempotency-Key: it takes effect once.";
            ApiError::from(Problem::new(ProblemType::Overloaded).detail(detail)).into_response()
        }
    }
}

/// How long the client itself asks to wait: by `Prefer`, or by `?wait=`. A value that is too large is refused further in.
fn asked_wait(request: &Request) -> Duration {
    let query = request.uri().query().unwrap_or_default();
    let by_query = query.split('&').filter_map(|pair| pair.strip_prefix("wait=")?.parse::<u64>().ok()).next();
    let seconds = by_query.or_else(|| preferred_wait_seconds(request.headers())).unwrap_or(0);
    Duration::from_secs(seconds.min(WAIT_SECONDS_MAX))
}

fn secure(settings: &Settings, response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in &SECURITY_HEADERS {
        if !headers.contains_key(name) {
            headers.insert(name, value.clone());
        }
    }
    if settings.public_url.scheme() == "https" {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

fn note(method: &Method, route: &str, trace: &TraceParent, response: &Response, took: Duration) {
    let status = response.status().as_u16();
    counted(method, route, status, took);
    if response.status().is_success() {
        tracing::debug!(%method, route, status, took_ms = millis(took), trace_id = trace.trace_id(), "request");
    } else {
        tracing::info!(%method, route, status, took_ms = millis(took), trace_id = trace.trace_id(), "request");
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

type Series = (Method, u16, Counter, Histogram);

/// Counts a request. The handles are kept: looking them up by labels costs more than counting, and there are as many as
/// routes and statuses.
fn counted(method: &Method, route: &str, status: u16, took: Duration) {
    static KEPT: LazyLock<RwLock<HashMap<String, Vec<Series>>>> = LazyLock::new(RwLock::default);
    let of = |series: &&Series| series.0 == *method && series.1 == status;
    let count = |(.., requests, seconds): &Series| {
        requests.increment(1);
        seconds.record(took);
    };
    let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(series) = kept.get(route).and_then(|kept| kept.iter().find(of)) {
        return count(series);
    }
    drop(kept);
    // Whatever a client may call a method must not become a series of its own.
    if !METHODS.contains(method) {
        return metrics::counter!("gateway_requests_total", "method" => "other", "route" => route.to_owned())
            .increment(1);
    }
    let labels = [("method", method.to_string()), ("route", route.to_owned()), ("status", status.to_string())];
    let requests = metrics::counter!("gateway_requests_total", &labels);
    let seconds = metrics::histogram!("gateway_request_seconds", "route" => route.to_owned());
    let series = (method.clone(), status, requests, seconds);
    count(&series);
    KEPT.write().unwrap_or_else(PoisonError::into_inner).entry(route.to_owned()).or_default().push(series);
}
