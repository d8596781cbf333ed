//! The middleware of every request: its trace, a permit or a 503 at once, a time limit, a caught panic, the security
//! headers, one count and one log line.

use std::{
    cell::Cell,
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock, PoisonError, RwLock},
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
use tokio::sync::Semaphore;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{
    ApiError,
    prefer::{WAIT_SECONDS_MAX, preferred_wait_seconds},
    request_context::{self, RequestContext},
};
use crate::config::GatewaySettings;

/// `Idempotency-Replayed: true` marks an answer that repeats an earlier one.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Set unless a handler set its own. Only JSON is served but for `/docs`, so nothing may be loaded from an answer.
static SECURITY_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// The limits that [`handle`] applies; one for the process, cheap to clone.
#[derive(Clone)]
pub struct RequestLimits {
    permits: Arc<Semaphore>,
    in_flight_max: usize,
    timeout: Duration,
    is_https: bool,
}

impl RequestLimits {
    /// Reads the limits from the settings.
    pub fn new(settings: &GatewaySettings) -> Self {
        let in_flight_max = settings.limits.requests_in_flight_max;
        Self {
            permits: Arc::new(Semaphore::new(in_flight_max)),
            in_flight_max,
            timeout: settings.request_timeout(),
            is_https: settings.public_url.scheme() == "https",
        }
    }

    /// Returns the number of requests in flight, without those that only wait.
    pub fn in_flight(&self) -> usize {
        self.in_flight_max - self.permits.available_permits()
    }
}

/// Handles one request.
pub async fn handle(State(limits): State<RequestLimits>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let sent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse::<TraceParent>().ok());
    let trace = sent.map_or_else(TraceParent::new, |sent| sent.child());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let permit = limits.permits.clone().try_acquire_owned();
    let is_shed = permit.is_err();
    let timeout = limits.timeout + requested_wait(&request);
    let if_none_match = match method {
        Method::GET | Method::HEAD => request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect(),
        _ => Vec::new(),
    };
    let work = async {
        if is_shed {
            metrics::counter!("gateway_shed_total", "reason" => "requests").increment(1);
            return ApiError::overloaded().into_response();
        }
        with_timeout(timeout, next.run(request)).await
    };
    let context = RequestContext { trace, permit: Cell::new(permit.ok()), if_none_match };
    let mut response = request_context::scope(context, work).await;
    if let Ok(value) = HeaderValue::from_bytes(&trace.encode()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    add_security_headers(limits.is_https, &mut response);
    record(&method, route.as_ref().map_or("unmatched", MatchedPath::as_str), &trace, &response, started.elapsed());
    response
}

/// The CORS policy: the origins of web pages that may call, and the headers that they may send and read.
pub fn cors(settings: &GatewaySettings) -> CorsLayer {
    let origins = settings.cors.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("prefer"),
            HeaderName::from_static("last-event-id"),
            TRACEPARENT,
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER, header::ETAG, REPLAYED, TRACEPARENT])
        .max_age(Duration::from_secs(3_600))
}

async fn with_timeout(timeout: Duration, work: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(timeout, AssertUnwindSafe(work).catch_unwind()).await {
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

/// Reads how long the client itself asks to wait: by `?wait=`, or by `Prefer`. A value that is too large is refused later.
fn requested_wait(request: &Request) -> Duration {
    let query = request.uri().query().unwrap_or_default();
    let by_query = query.split('&').filter_map(|pair| pair.strip_prefix("wait=")?.parse::<u64>().ok()).next();
    let seconds = by_query.or_else(|| preferred_wait_seconds(request.headers())).unwrap_or(0);
    Duration::from_secs(seconds.min(WAIT_SECONDS_MAX))
}

fn add_security_headers(is_https: bool, response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in &SECURITY_HEADERS {
        if !headers.contains_key(name) {
            headers.insert(name, value.clone());
        }
    }
    if is_https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

fn record(method: &Method, route: &str, trace: &TraceParent, response: &Response, took: Duration) {
    let status = response.status().as_u16();
    count(method, route, status, took);
    let took_ms = took.as_secs_f64() * 1_000.0;
    if response.status().is_success() {
        tracing::debug!(%method, route, status, took_ms, trace_id = trace.trace_id(), "request");
    } else {
        tracing::info!(%method, route, status, took_ms, trace_id = trace.trace_id(), "request");
    }
}

const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

type Series = (Method, u16, Counter, Histogram);

/// Counts a request. The handles are kept: looking them up by labels costs more than counting, and there are as many as
/// routes and statuses.
fn count(method: &Method, route: &str, status: u16, took: Duration) {
    static KEPT: LazyLock<RwLock<HashMap<String, Vec<Series>>>> = LazyLock::new(RwLock::default);
    let is_same = |series: &&Series| series.0 == *method && series.1 == status;
    let increment = |(.., requests, seconds): &Series| {
        requests.increment(1);
        seconds.record(took);
    };
    let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(series) = kept.get(route).and_then(|kept| kept.iter().find(is_same)) {
        return increment(series);
    }
    drop(kept);
    // Methods that clients invent must not become series of their own.
    if !METHODS.contains(method) {
        return metrics::counter!("gateway_requests_total", "method" => "other", "route" => route.to_owned())
            .increment(1);
    }
    let labels = [("method", method.to_string()), ("route", route.to_owned()), ("status", status.to_string())];
    let requests = metrics::counter!("gateway_requests_total", &labels);
    let seconds = metrics::histogram!("gateway_request_seconds", "route" => route.to_owned());
    let series = (method.clone(), status, requests, seconds);
    increment(&series);
    KEPT.write().unwrap_or_else(PoisonError::into_inner).entry(route.to_owned()).or_default().push(series);
}
