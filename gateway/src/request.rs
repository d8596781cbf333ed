//! What belongs to one request and is needed far below its handler: its trace, and its place among the requests in hand,
//! which whoever only waits gives back. Task-local, set by [`crate::middleware`].

use std::{cell::Cell, future::Future};

use contracts::TraceParent;
use tokio::sync::OwnedSemaphorePermit;

tokio::task_local! {
    static CONTEXT: Context;
}

struct Context {
    trace: TraceParent,
    place: Cell<Option<OwnedSemaphorePermit>>,
}

/// Runs a request within its trace, holding its place until it ends or [`leave_place`] is called.
pub async fn scope<F: Future>(trace: TraceParent, place: Option<OwnedSemaphorePermit>, request: F) -> F::Output {
    CONTEXT.scope(Context { trace, place: Cell::new(place) }, request).await
}

/// The trace of the request in hand; a new one outside of any request.
pub fn trace() -> TraceParent {
    CONTEXT.try_with(|context| context.trace).unwrap_or_default()
}

/// Gives the request's place back: it only waits from now on.
pub fn leave_place() {
    let _ = CONTEXT.try_with(|context| context.place.take());
}
