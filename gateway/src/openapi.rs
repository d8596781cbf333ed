//! The OpenAPI 3.1 document, made from the handlers themselves, and a page that shows it without the internet. What is
//! true of every operation is said here once: how it fails, and how a caller shows who they are.

use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use std::sync::Arc;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Content, InfoBuilder, OpenApi, Ref, RefOr, Response as ResponseDoc,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::state::App;

/// Scripts and styles of the page's own origin alone; its start-up script and styles stand inline.
const DOCS_CSP: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

const TAGS: [(&str, &str); 12] = [
    ("auth", "Sign in, refresh, mailed links, sign out."),
    ("me", "The signed-in user."),
    ("catalogue", "Courses and batches, with their free seats."),
    ("registrations", "A claim on a seat. Commands: 202, and an operation tells what became of it."),
    ("payments", "Payments and their decisions. Commands."),
    ("operations", "What became of a command: poll, long-poll, or events."),
    ("events", "What happens to the signed-in user, as it happens."),
    ("invoices", "Invoices, credit notes, PDFs."),
    ("enrollments", "Students in batches."),
    ("notifications", "What the user was told."),
    ("health", "Whether the gateway lives and is ready."),
    ("documentation", "What problems mean."),
];

/// A problem (RFC 9457), as `application/problem+json`.
#[allow(dead_code)]
#[derive(ToSchema)]
struct Problem {
    /// A stable URI reference; `GET` it for its meaning.
    #[schema(rename = "type", example = "/problems/validation-failed")]
    r#type: String,
    /// The type in a few words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// This occurrence, for a person.
    detail: Option<String>,
    /// The trace id of this request.
    instance: Option<String>,
    /// Whether the same request can succeed later.
    retryable: bool,
    /// Bad fields.
    errors: Option<Vec<FieldError>>,
}

/// A field that is not valid.
#[allow(dead_code)]
#[derive(ToSchema)]
struct FieldError {
    /// Its path: `items[3].amount`.
    field: String,
    /// A stable word.
    code: String,
    /// What is wrong and what to send instead.
    message: String,
}

/// Completes the document that the routes make.
pub fn describe(mut api: OpenApi) -> OpenApi {
    api.info = InfoBuilder::new()
        .title("Registrar")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Registrations, payments and invoices of a training institute. Commands answer 202 with an operation; send an \
             `Idempotency-Key`, and repeat a request whose answer was lost.",
        ))
        .build();
    api.tags =
        Some(TAGS.iter().map(|(name, text)| TagBuilder::new().name(*name).description(Some(*text)).build()).collect());
    let components = api.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.schemas.insert("Problem".into(), Problem::schema());
    components.schemas.insert("FieldError".into(), FieldError::schema());
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.entry("default".to_owned()).or_insert_with(|| RefOr::T(problem_response()));
        }
    }
    api
}

fn problem_response() -> ResponseDoc {
    let mut response = ResponseDoc::new("A problem");
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
    response
}

/// `GET /openapi.json` and the page at `/docs`.
pub fn routes(document: OpenApi) -> Router<App> {
    let document: Arc<Value> = Arc::new(serde_json::to_value(&document).expect("the document is JSON by its types"));
    let json = get(move || {
        let document = document.clone();
        async move { Json(document) }
    });
    let page: Router<App> = SwaggerUi::new("/docs").config(Config::from("/openapi.json")).into();
    Router::new().route("/openapi.json", json).merge(page.layer(middleware::from_fn(allow_page)))
}

async fn allow_page(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await.into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCS_CSP));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE=1` writes the document anew.
    #[test]
    fn the_checked_in_document_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let made = describe(crate::api().into_openapi()).to_pretty_json().expect("JSON") + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &made).expect("the crate's folder can be written");
        }
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(made == checked_in, "gateway/openapi.json is stale: UPDATE=1 cargo test -p gateway --lib openapi");
    }

    #[test]
    fn every_operation_says_who_may_call_it_how_it_fails_and_where_it_belongs() {
        let document = serde_json::to_value(describe(crate::api().into_openapi())).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        for (path, method, operation) in
            paths.iter().flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(m, o)| (path, m, o)))
        {
            assert!(operation["responses"]["default"].is_object(), "{method} {path} does not say how it fails");
            let tag = operation["tags"][0].as_str().unwrap_or_default();
            assert!(TAGS.iter().any(|(known, _)| *known == tag), "{method} {path} has the unknown tag `{tag}`");
            let may = operation["security"].is_array();
            assert!(may, "{method} {path} does not say who may call it");
        }
        assert_eq!(document["openapi"].as_str().and_then(|version| version.get(..3)), Some("3.1"));
    }
}
