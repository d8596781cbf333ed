//! The routers of the two listeners. An address that leads nowhere is a problem too.

use axum::{Router, extract::State, middleware::from_fn_with_state, response::IntoResponse, routing::get};
use contracts::ProblemType;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    api::{self, RESOURCES},
    app::App,
    http::{ApiError, metrics, middleware, openapi},
    portal,
};

/// Returns the OpenAPI document of the API.
pub fn document() -> OpenApi {
    complete(resources().into_openapi())
}

/// Returns the public listener's router.
pub fn public(app: App) -> Router {
    let (router, document) = resources().split_for_parts();
    router
        .merge(openapi::routes(complete(document)))
        .merge(portal::routes())
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::from(ProblemType::MethodNotAllowed) })
        .layer(from_fn_with_state(app.request_limits().clone(), middleware::handle))
        .layer(middleware::cors(app.settings()))
        .with_state(app)
}

/// Returns the private listener's router: metrics and health.
pub fn private(app: App) -> Router {
    Router::new().route("/metrics", get(render_metrics)).merge(api::health::private_routes()).with_state(app)
}

/// Every resource under its tag.
fn resources() -> OpenApiRouter<App> {
    RESOURCES.iter().fold(OpenApiRouter::new(), |all, resource| {
        let mut routes = (resource.routes)();
        openapi::set_tag(routes.get_openapi_mut(), resource.tag);
        all.merge(routes)
    })
}

fn complete(document: OpenApi) -> OpenApi {
    let tags = RESOURCES.iter().map(|resource| openapi::tag(resource.tag, resource.description));
    openapi::complete(document, tags.collect())
}

async fn render_metrics(State(app): State<App>) -> impl IntoResponse {
    let is_ready = app.publisher().is_ready() && !app.is_draining();
    ::metrics::gauge!("gateway_requests_in_flight").set(app.request_limits().in_flight() as f64);
    ::metrics::gauge!("gateway_ready").set(f64::from(u8::from(is_ready)));
    ::metrics::gauge!("gateway_database_connections").set(f64::from(app.db().size()));
    metrics::render()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE=1` writes the document anew.
    #[test]
    fn the_checked_in_document_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let made = document().to_pretty_json().expect("JSON") + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &made).expect("the crate's folder can be written");
        }
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(made == checked_in, "gateway/openapi.json is stale: UPDATE=1 cargo test -p gateway --lib router");
    }

    #[test]
    fn every_operation_documents_authentication_errors_tag_and_entity_tag() {
        let document = serde_json::to_value(document()).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        for (path, method, operation) in
            paths.iter().flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(m, o)| (path, m, o)))
        {
            assert!(operation["responses"]["default"].is_object(), "{method} {path} does not document its errors");
            let tag = operation["tags"][0].as_str().unwrap_or_default();
            assert!(
                RESOURCES.iter().any(|resource| resource.tag == tag),
                "{method} {path} has the unknown tag `{tag}`"
            );
            assert!(operation["security"].is_array(), "{method} {path} does not document authentication");
            let success = &operation["responses"]["200"]["content"];
            if method == "get" && success["application/json"].is_object() && tag != "health" {
                let unchanged = &operation["responses"]["304"];
                assert!(unchanged.is_object(), "{method} {path} has no entity tag");
            }
        }
        assert_eq!(document["openapi"].as_str().and_then(|version| version.get(..3)), Some("3.1"));
    }
}
