//! The pages that mailed links open (`/magic`, `/reset`): static, without anything from elsewhere, for institutes whose
//! own frontend does not serve these two addresses. The token never reaches a log: it stands behind the `#`.

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The two pages and what they load.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = || std::future::ready(file("text/html; charset=utf-8", include_str!("../../pages/mailed_link.html")));
    Router::new()
        .route("/magic", get(page))
        .route("/reset", get(page))
        .route(
            "/mailed-link.js",
            get(|| async { file("text/javascript; charset=utf-8", include_str!("../../pages/mailed_link.js")) }),
        )
        .route(
            "/mailed-link.css",
            get(|| async { file("text/css; charset=utf-8", include_str!("../../pages/mailed_link.css")) }),
        )
}

fn file(content_type: &'static str, content: &'static str) -> Response {
    let mut response = content.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    response
}
