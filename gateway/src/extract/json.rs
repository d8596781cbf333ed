//! JSON bodies. A body that cannot be read is refused before any handler sees it, and the answer names the field and the
//! fix: 415, 413, 408, 400 for what is no JSON, 422 for JSON of another shape.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRef, FromRequest, Request},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use contracts::{FieldError, Problem, ProblemType};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{
    config::Limits,
    http::{ApiError, ApiResult},
};

/// Limits of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    bytes: usize,
    read_timeout: Duration,
}

impl BodyLimits {
    /// Reads them from the settings.
    pub fn new(limits: &Limits) -> Self {
        Self { bytes: limits.body_bytes, read_timeout: Duration::from_millis(limits.header_read_ms) }
    }
}

/// A body of this shape. Shapes have `deny_unknown_fields`.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// A body of this shape, or none at all: then the shape's default.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        expect_json(request.headers())?;
        let bytes = read(request, BodyLimits::from_ref(state)).await?;
        parse(&bytes).map(Json)
    }
}

impl<S, T> FromRequest<S> for OptionalJson<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
    T: DeserializeOwned + Default,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let is_json = expect_json(request.headers());
        let bytes = read(request, BodyLimits::from_ref(state)).await?;
        if bytes.is_empty() {
            return Ok(OptionalJson(T::default()));
        }
        is_json?;
        parse(&bytes).map(OptionalJson)
    }
}

fn expect_json(headers: &HeaderMap) -> ApiResult<()> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(ProblemType::UnsupportedMediaType)
        .detail("Send the header `Content-Type: application/json`.")
        .into())
}

async fn read(request: Request, limits: BodyLimits) -> ApiResult<Bytes> {
    let too_large =
        || ApiError::from(Problem::new(ProblemType::BodyTooLarge).detail(format!("At most {} bytes.", limits.bytes)));
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.bytes as u64) {
        return Err(too_large());
    }
    let body: Limited<Body> = Limited::new(request.into_body(), limits.bytes);
    match tokio::time::timeout(limits.read_timeout, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::invalid_request("The body broke off.")),
        Err(_) => Err(ProblemType::RequestTimeout.into()),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    serde_json::from_slice(bytes).or_else(|_| explain(bytes))
}

/// Reads a refused body once more to name the field: keeping track of the path costs as much again as reading.
fn explain<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let malformed = |detail: String| ApiError::from(Problem::new(ProblemType::MalformedJson).detail(detail));
    std::str::from_utf8(bytes)
        .map_err(|error| malformed(format!("The body is not UTF-8: see byte {}.", error.valid_up_to())))?;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match error.classify() {
            Category::Data => ApiError::validation(vec![shape_error(&path, &error)]),
            Category::Syntax | Category::Eof | Category::Io => malformed(format!("{error}.")),
        }
    })?;
    json.end().map_err(|error| malformed(format!("{error}.")))?;
    Ok(value)
}

/// serde names a missing field only in its message, and the path is then its parent's; the other kinds are told apart for
/// the code alone. A test holds the wording.
fn shape_error(path: &str, error: &serde_json::Error) -> FieldError {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let parent = if path == "." { "" } else { path };
    let field = |name: &str| match (parent, name) {
        ("", name) => name.to_owned(),
        (parent, "") => parent.to_owned(),
        (parent, name) => format!("{parent}.{name}"),
    };
    if let Some(name) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return FieldError::new(field(name), "required", "is missing");
    }
    if text.starts_with("unknown field") {
        return FieldError::new(field(""), "unknown_field", format!("must not be sent: {text}"));
    }
    FieldError::new(field(""), "wrong_type", format!("has the wrong type or form: {text}"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Body {
        name: String,
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Item {
        count: u8,
    }

    fn refused(body: &str) -> (String, Option<(String, String)>) {
        let error = parse::<Body>(body.as_bytes()).expect_err("refused");
        let problem = error.problem();
        (problem.problem_type.clone(), problem.errors.first().map(|error| (error.field.clone(), error.code.clone())))
    }

    #[test]
    fn the_field_is_named_by_its_path() {
        for (body, field, code) in [
            (r#"{"items":[]}"#, "name", "required"),
            (r#"{"name":"a","items":[{"count":1},{}]}"#, "items[1].count", "required"),
            (r#"{"name":"a","items":[],"nmae":1}"#, "nmae", "unknown_field"),
            (r#"{"name":"a","items":[{"count":1,"x":1}]}"#, "items[0].x", "unknown_field"),
            (r#"{"name":1,"items":[]}"#, "name", "wrong_type"),
            (r#"{"name":"a","items":[{"count":-1}]}"#, "items[0].count", "wrong_type"),
        ] {
            assert_eq!(
                refused(body),
                ("/problems/validation-failed".into(), Some((field.into(), code.into()))),
                "{body}"
            );
        }
    }

    #[test]
    fn a_body_that_is_no_json_is_malformed() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in ["", "{", "{}x", r#"{"name":"a","items":[]} {}"#, "\u{0}", "nul", &format!(r#"{{"name":{deep}}}"#)]
        {
            assert_eq!(
                refused(body).0.replace("/problems/", ""),
                match body {
                    body if body.len() > 1_000 => "validation-failed",
                    "{}x" => "validation-failed",
                    _ => "malformed-json",
                },
                "{}",
                &body[..body.len().min(40)]
            );
        }
        assert!(parse::<Body>(b"{\"name\":\"\xff\"}").expect_err("refused").problem().is(ProblemType::MalformedJson));
    }
}
