//! The context of one request, for code far below its handler: its trace, its permit among the requests in flight, and
//! the entity tags that its client holds. Task-local, set by [`super::middleware`].

use std::{cell::Cell, future::Future};

use axum::http::HeaderValue;
use contracts::TraceParent;
use tokio::sync::OwnedSemaphorePermit;

tokio::task_local! {
    static CONTEXT: RequestContext;
}

/// One request's context.
pub struct RequestContext {
    /// The trace that the request belongs to.
    pub trace: TraceParent,
    /// The permit to be worked on; absent where the request was shed.
    pub permit: Cell<Option<OwnedSemaphorePermit>>,
    /// `If-None-Match` of a `GET` or `HEAD`.
    pub if_none_match: Vec<HeaderValue>,
}

/// Runs a request within its context. Its permit is held until the request ends or [`release_permit`] is called.
pub async fn scope<F: Future>(context: RequestContext, request: F) -> F::Output {
    CONTEXT.scope(context, request).await
}

/// Returns the trace of the current request; a new one outside of any request.
pub fn trace() -> TraceParent {
    CONTEXT.try_with(|context| context.trace).unwrap_or_default()
}

/// Gives the request's permit back: from now on it only waits.
pub fn release_permit() {
    let _ = CONTEXT.try_with(|context| context.permit.take());
}

/// Tells whether the client already holds the representation with this entity tag (RFC 9110 §13.1.2: weak comparison).
pub fn client_holds(etag: &HeaderValue) -> bool {
    let is_held = |context: &RequestContext| {
        let tags = context.if_none_match.iter().filter_map(|value| value.to_str().ok());
        tags.flat_map(|value| value.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag.as_bytes() == etag.as_bytes() || tag == "*")
    };
    CONTEXT.try_with(is_held).unwrap_or(false)
}
