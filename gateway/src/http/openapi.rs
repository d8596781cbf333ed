//! The OpenAPI 3.1 document, made from the handlers themselves, and a page that shows it without the internet. What holds
//! for every operation is written here once: errors, authentication, and the entity tag of every read.

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
        Content, Header, HeaderBuilder, InfoBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Response as ResponseDoc, Type,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::{Tag, TagBuilder},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Scripts and styles of the page's own origin alone; its start-up script and styles are inline.
const DOCS_CSP: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

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
    /// `true` where the same request can succeed later.
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
    /// The fault, and what to send instead.
    message: String,
}

/// Puts every operation of a resource under its tag.
pub fn set_tag(api: &mut OpenApi, tag: &str) {
    operations(api).for_each(|(_, operation)| operation.tags = Some(vec![tag.to_owned()]));
}

/// Makes a tag: its name and a sentence about it.
pub fn tag(name: &str, description: &str) -> Tag {
    TagBuilder::new().name(name).description(Some(description)).build()
}

/// Completes the document that the routes make: title, tags, authentication, problems, entity tags.
pub fn complete(mut api: OpenApi, tags: Vec<Tag>) -> OpenApi {
    api.info = InfoBuilder::new()
        .title("Registrar")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Registrations, payments and invoices of a training institute. Commands answer 202 with an operation; send an \
             `Idempotency-Key`, and repeat a request whose answer was lost.",
        ))
        .build();
    api.tags = Some(tags);
    let components = api.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.schemas.insert("Problem".into(), Problem::schema());
    components.schemas.insert("FieldError".into(), FieldError::schema());
    for (is_read, operation) in operations(&mut api) {
        let responses = &mut operation.responses.responses;
        responses.entry("default".to_owned()).or_insert_with(|| RefOr::T(problem_response()));
        // The state of the process is no resource.
        if is_read && operation.tags.as_ref().is_none_or(|tags| tags != &["health"]) {
            add_entity_tag(operation);
        }
    }
    api
}

/// Every operation of the document; `true` for a `GET`.
fn operations(api: &mut OpenApi) -> impl Iterator<Item = (bool, &mut Operation)> {
    api.paths.paths.values_mut().flat_map(|item| {
        let writes = [&mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        let writes = writes.into_iter().flatten().map(|operation| (false, operation));
        item.get.iter_mut().map(|operation| (true, operation)).chain(writes)
    })
}

/// Documents what [`super::Representation`] does: `ETag` on the 200, and a 304.
fn add_entity_tag(operation: &mut Operation) {
    let Some(RefOr::T(found)) = operation.responses.responses.get_mut("200") else { return };
    if !found.content.contains_key("application/json") && !found.content.contains_key("application/pdf") {
        return;
    }
    found.headers.insert("ETag".to_owned(), entity_tag_header());
    let mut unchanged = ResponseDoc::new("Unchanged: the client's `If-None-Match` names it");
    unchanged.headers.insert("ETag".to_owned(), entity_tag_header());
    operation.responses.responses.entry("304".to_owned()).or_insert(RefOr::T(unchanged));
}

fn entity_tag_header() -> RefOr<Header> {
    let text = ObjectBuilder::new().schema_type(Type::String);
    RefOr::T(HeaderBuilder::new().schema(Some(text)).description(Some("Send it as `If-None-Match`.")).build())
}

fn problem_response() -> ResponseDoc {
    let mut response = ResponseDoc::new("A problem");
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
    response
}

/// `GET /openapi.json` and the page at `/docs`.
pub fn routes<S: Clone + Send + Sync + 'static>(document: OpenApi) -> Router<S> {
    let document: Arc<Value> = Arc::new(serde_json::to_value(&document).expect("the document is JSON by its types"));
    let json = get(move || {
        let document = document.clone();
        async move { Json(document) }
    });
    let page: Router<S> = SwaggerUi::new("/docs").config(Config::from("/openapi.json")).into();
    Router::new().route("/openapi.json", json).merge(page.layer(middleware::from_fn(allow_page)))
}

async fn allow_page(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await.into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCS_CSP));
    response
}
