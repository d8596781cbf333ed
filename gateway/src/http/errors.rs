//! Errors as RFC 9457 problem details, whatever went wrong and wherever. Database and broker errors become problems here,
//! once, so that handlers use `?`; their causes go to the log, never to the client.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contracts::{FieldError, Problem, ProblemType, amqp::PublishError};
use rand::RngExt;

use super::request_context;

/// The result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

/// A problem on its way to the client.
#[derive(Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    retry_after_seconds: Option<u64>,
    www_authenticate: Option<&'static str>,
}

impl ApiError {
    /// Returns a 422 that names every field that is not valid.
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let fields: Vec<_> = errors.iter().map(|error| format!("{} {}", error.field, error.message)).collect();
        Problem::new(ProblemType::ValidationFailed).detail(fields.join("; ")).errors(errors).into()
    }

    /// Returns a 400 for a request that cannot be read.
    pub fn invalid_request(detail: impl Into<String>) -> Self {
        Problem::new(ProblemType::InvalidRequest).detail(detail).into()
    }

    /// Returns a 404 for an object that does not exist, or that the caller may not see.
    pub fn not_found() -> Self {
        ProblemType::NotFound.into()
    }

    /// Returns a problem of this type that names one field.
    pub fn field(problem_type: ProblemType, field: &str, code: &str, message: &str) -> Self {
        Problem::new(problem_type).detail(message).field(field, code, message).into()
    }

    /// Sets `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Sets `WWW-Authenticate`, which a 401 must bear (RFC 9110 §11.6.1).
    #[must_use]
    pub fn www_authenticate(mut self, challenge: &'static str) -> Self {
        self.www_authenticate = Some(challenge);
        self
    }

    /// Returns the problem that the client receives.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Returns a 503 whose `Retry-After` differs from client to client.
    pub fn overloaded() -> Self {
        Self::from(ProblemType::Overloaded)
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        let retry_after_seconds = (problem.status == 503).then(|| rand::rng().random_range(1..=5));
        let www_authenticate = problem.is(ProblemType::Unauthenticated).then_some("Bearer");
        Self { problem: Box::new(problem), retry_after_seconds, www_authenticate }
    }
}

impl From<ProblemType> for ApiError {
    fn from(problem_type: ProblemType) -> Self {
        Problem::new(problem_type).into()
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        if database_is_away(&error) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database does not answer");
            return ProblemType::DatabaseUnavailable.into();
        }
        tracing::error!(error = &error as &dyn std::error::Error, "a query failed");
        ProblemType::Internal.into()
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "an event could not be published");
        match error {
            PublishError::Unavailable => Problem::new(ProblemType::BrokerUnavailable).detail("The message broker is away."),
            PublishError::Blocked => Problem::new(ProblemType::BrokerUnavailable).detail("The message broker takes nothing now."),
            PublishError::Overloaded => Problem::new(ProblemType::Overloaded),
            PublishError::Unknown => Problem::new(ProblemType::BrokerUnavailable).detail(
                "It is not known whether the request was taken. Send it again with the same Idempotency-Key: it takes effect once.",
            ),
        }
        .into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = self.problem.member("instance", request_context::trace().trace_id());
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.www_authenticate {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// Tells by type and SQLSTATE whether Postgres is unreachable, out of resources or too slow.
fn database_is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // Read-only transaction: still connected to what has become a standby. Then statement and lock timeouts.
            matches!(code.as_ref(), "25006" | "57014" | "55P03")
                || ["08", "53", "57P"].iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        _ => false,
    }
}
