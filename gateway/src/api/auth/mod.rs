//! The endpoints of authentication, one file each. They carry passwords and tokens, so all of them are synchronous.

mod exchange;
mod login;
mod logout;
mod public_keys;
mod recovery;
mod refresh;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login::login))
        .routes(routes!(refresh::refresh))
        .routes(routes!(logout::logout))
        .routes(routes!(exchange::exchange))
        .routes(routes!(recovery::forgot))
        .routes(routes!(recovery::reset))
        .routes(routes!(recovery::verify))
        .routes(routes!(public_keys::public_keys))
}
