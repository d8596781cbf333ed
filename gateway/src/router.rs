//! Which address leads where. Whatever leads nowhere is a problem too.

use axum::{Router, middleware::from_fn_with_state};
use contracts::ProblemType;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    auth, catalogue_reads, enrollments, events, health, invoices, mailed_link, me, middleware, notifications, openapi,
    operations, payments, problem_response::ApiError, problems, registrations, state::App,
};

/// Every route that the OpenAPI document describes.
pub fn api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(auth::routes())
        .merge(me::routes())
        .merge(catalogue_reads::routes())
        .merge(registrations::routes())
        .merge(payments::routes())
        .merge(invoices::routes())
        .merge(enrollments::routes())
        .merge(notifications::routes())
        .merge(operations::routes())
        .merge(events::routes())
        .merge(problems::routes())
        .merge(health::routes())
}

/// The public listener's router.
pub fn router(app: App) -> Router {
    let (router, api) = api().split_for_parts();
    router
        .merge(openapi::routes(openapi::describe(api)))
        .merge(mailed_link::routes())
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::from(ProblemType::MethodNotAllowed) })
        .layer(from_fn_with_state(app.clone(), middleware::handle))
        .layer(middleware::cors(&app.settings))
        .with_state(app)
}
