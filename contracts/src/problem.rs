//! RFC 9457 problem details, the same in a 4xx and in a rejected outcome. Types are stable: clients switch on them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One invalid field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Path of the field, dotted, list positions in brackets: `items[3].amount`.
    pub field: String,
    /// A stable word: `required`, `too_long`, `not_positive`, …
    pub code: String,
    /// The error, and what to send instead.
    pub message: String,
}

impl FieldError {
    /// A field error.
    pub fn new(field: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.to_owned(), message: message.into() }
    }
}

/// Problem details as RFC 9457 §3.1 defines them, with our extensions `errors` and `retryable`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A relative URI reference, `/problems/<slug>`; the gateway serves its explanation there.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The type in a few words, always the same.
    pub title: String,
    /// The HTTP status of the response, or, in a rejected outcome, of an equivalent response.
    pub status: u16,
    /// This occurrence, explained for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// True if the same request can succeed later.
    pub retryable: bool,
    /// Invalid fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Further members, such as `amount_due`.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

macro_rules! problem_types {
    ($($variant:ident $slug:literal $status:literal $retryable:literal $title:literal;)*) => {
        /// Every problem type, with its slug, HTTP status, retryability and title.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ProblemType {
            $(#[doc = $title] $variant,)*
        }

        impl ProblemType {
            /// Every type.
            pub const ALL: &'static [ProblemType] = &[$(ProblemType::$variant,)*];

            /// The last part of the `type` URI.
            pub const fn slug(self) -> &'static str {
                match self { $(ProblemType::$variant => $slug,)* }
            }

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(ProblemType::$variant => $status,)* }
            }

            /// Returns true if the same request can succeed later.
            pub const fn retryable(self) -> bool {
                match self { $(ProblemType::$variant => $retryable,)* }
            }

            /// The type in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(ProblemType::$variant => $title,)* }
            }
        }
    };
}

problem_types! {
    MalformedJson "malformed-json" 400 false "The body is not valid JSON.";
    InvalidRequest "invalid-request" 400 false "The request cannot be read.";
    Unauthenticated "unauthenticated" 401 false "A valid access token is needed.";
    InvalidCredentials "invalid-credentials" 401 false "E-mail or password is wrong.";
    InvalidToken "invalid-token" 401 false "The token is not valid, was used, or has expired.";
    Forbidden "forbidden" 403 false "Your role does not allow this.";
    NotFound "not-found" 404 false "There is no such thing.";
    MethodNotAllowed "method-not-allowed" 405 false "This address does not take that method.";
    RequestTimeout "request-timeout" 408 true "The request took too long to arrive.";
    Conflict "conflict" 409 false "The value is taken.";
    PreconditionFailed "precondition-failed" 412 false "The resource was changed meanwhile.";
    PreconditionRequired "precondition-required" 428 false "Send `If-Match` with the `ETag` of the resource.";
    BodyTooLarge "body-too-large" 413 false "The body is too large.";
    UnsupportedMediaType "unsupported-media-type" 415 false "Send application/json.";
    ValidationFailed "validation-failed" 422 false "Some fields are not valid.";
    IdempotencyKeyReused "idempotency-key-reused" 422 false "This idempotency key came before with another payload.";
    UnknownBatch "unknown-batch" 422 false "There is no such batch.";
    BatchClosed "batch-closed" 422 false "The batch does not take registrations now.";
    TooManyRequests "too-many-requests" 429 true "Too many attempts.";
    Internal "internal" 500 true "Something went wrong on our side.";
    BrokerUnavailable "broker-unavailable" 503 true "The request could not be made safe; nothing is lost by trying again.";
    Overloaded "overloaded" 503 true "Too many requests are in hand.";
    DatabaseUnavailable "database-unavailable" 503 true "The database does not answer.";
    BatchFull "batch-full" 409 false "The batch and its waitlist are full.";
    AlreadyRegistered "already-registered" 409 false "You are registered for this batch already.";
    RegistrationNotFound "registration-not-found" 404 false "There is no such registration.";
    RegistrationNotPayable "registration-not-payable" 409 false "This registration takes no payment now.";
    HoldExpired "hold-expired" 409 false "The seat was held too long ago and has been given up.";
    DuplicateReference "duplicate-reference" 409 false "A payment with this transaction reference exists already.";
    Overpayment "overpayment" 409 false "The amount is more than what is due.";
    CurrencyMismatch "currency-mismatch" 409 false "The payment's currency is not the registration's.";
    PaymentNotFound "payment-not-found" 404 false "There is no such payment.";
    AlreadyDecided "already-decided" 409 false "This has been decided already.";
    OwnPayment "own-payment" 403 false "Nobody decides a payment of their own.";
    NothingToInvoice "nothing-to-invoice" 409 false "The payment is not approved.";
    OperationFailed "operation-failed" 500 false "The operation failed for good; the staff have been told.";
}

impl Problem {
    /// A problem of this type.
    pub fn new(problem_type: ProblemType) -> Self {
        Self {
            problem_type: format!("/problems/{}", problem_type.slug()),
            title: problem_type.title().to_owned(),
            status: problem_type.status(),
            detail: None,
            retryable: problem_type.retryable(),
            errors: Vec::new(),
            members: Map::new(),
        }
    }

    /// Sets the explanation of this occurrence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Sets the invalid fields.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds an invalid field.
    #[must_use]
    pub fn field(mut self, field: &str, code: &str, message: impl Into<String>) -> Self {
        self.errors.push(FieldError::new(field, code, message));
        self
    }

    /// Adds a member, such as `amount_due`.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Returns true if it is of this type.
    pub fn is(&self, problem_type: ProblemType) -> bool {
        self.problem_type.strip_prefix("/problems/") == Some(problem_type.slug())
    }
}

impl From<ProblemType> for Problem {
    fn from(problem_type: ProblemType) -> Self {
        Problem::new(problem_type)
    }
}
