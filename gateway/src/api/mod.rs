//! The resources of the API, a folder each: routes and handlers, `views` (wire types), `queries` (SQL). A new resource is
//! a folder and a line in [`RESOURCES`].

pub mod auth;
pub mod catalogue;
pub mod enrollments;
pub mod events;
pub mod health;
pub mod invoices;
pub mod me;
pub mod notifications;
pub mod operations;
pub mod payments;
pub mod problems;
pub mod registrations;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// A resource of the API.
pub struct Resource {
    /// Its tag in the OpenAPI document.
    pub tag: &'static str,
    /// A sentence about it.
    pub description: &'static str,
    /// Its routes.
    pub routes: fn() -> OpenApiRouter<App>,
}

const fn resource(tag: &'static str, description: &'static str, routes: fn() -> OpenApiRouter<App>) -> Resource {
    Resource { tag, description, routes }
}

/// Every resource, in the order of the document.
pub const RESOURCES: &[Resource] = &[
    resource("auth", "Sign in, refresh, mailed links, sign out.", auth::routes),
    resource("me", "The signed-in user.", me::routes),
    resource("catalogue", "Courses and batches, with their free seats.", catalogue::routes),
    resource(
        "registrations",
        "A claim on a seat. Commands: 202, and an operation reports the result.",
        registrations::routes,
    ),
    resource("payments", "Payments and their decisions. Commands.", payments::routes),
    resource("operations", "The results of commands: poll, long-poll, or events.", operations::routes),
    resource("events", "Everything that happens to the signed-in user, as it happens.", events::routes),
    resource("invoices", "Invoices, credit notes, PDFs.", invoices::routes),
    resource("enrollments", "Students in batches.", enrollments::routes),
    resource("notifications", "The user's inbox in the application.", notifications::routes),
    resource("health", "Liveness and readiness of the gateway.", health::routes),
    resource("documentation", "The meaning of problems.", problems::routes),
];
