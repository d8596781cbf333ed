//! Payments: reported by students, decided by accountants, one at a time or up to 500; listed from the database.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use contracts::{
    FieldError, Role,
    messages::{DecidePayment, PaymentDecision, PaymentMethod, SubmitPayment},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::Caller,
    ingest::{self, Asked},
    json_body::{Json, OptionalJson},
    operations::OperationView,
    page::{self, Page},
    problem_response::{ApiError, ApiResult},
    query::{Id, Query},
    state::App,
};

/// Decisions a request.
const DECISIONS_MAX: usize = 500;
const DECIDERS: &[Role] = &[Role::Accountant, Role::Admin];

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(submit, list))
        .routes(routes!(decide_many))
        .routes(routes!(show))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

/// Money that was sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPayment {
    /// What is paid for.
    registration_id: Uuid,
    /// `bank_transfer`, `upi`, `card`, `cash` or `cheque`.
    #[schema(value_type = String)]
    method: PaymentMethod,
    /// The bank's reference, as typed.
    transaction_id: String,
    /// Gross, at most two decimals.
    #[serde(deserialize_with = "decimal_text")]
    #[schema(value_type = String, example = "11800.00")]
    amount: Decimal,
    /// ISO 4217, such as `INR`.
    currency: String,
    /// When it was paid.
    paid_at: Option<DateTime<Utc>>,
    /// Whose account it came from, where not the student's own.
    payer_name: Option<String>,
    /// An uploaded proof.
    proof_file_id: Option<Uuid>,
}

/// The money has arrived.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Approval {
    /// For the file; at most 1,000 characters.
    note: Option<String>,
}

/// It has not, or not as claimed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rejection {
    /// Told to the student: `not_received`, `wrong_amount`, ….
    rejection_code: String,
    /// For the file; at most 1,000 characters.
    note: Option<String>,
}

/// Many decisions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Decisions {
    /// 1 to 500, each payment once.
    items: Vec<Decision>,
}

/// One of many decisions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Decision {
    payment_id: Uuid,
    verdict: VerdictWord,
    /// With `reject` only.
    rejection_code: Option<String>,
    note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum VerdictWord {
    Approve,
    Reject,
}

/// The operations of many commands, in the order asked.
#[derive(Debug, Serialize, ToSchema)]
struct Operations {
    items: Vec<OperationView>,
}

/// A payment.
#[derive(Debug, Serialize, ToSchema)]
struct PaymentView {
    id: Uuid,
    registration_id: Uuid,
    student_id: Uuid,
    method: String,
    transaction_id: String,
    #[schema(value_type = String)]
    amount: Decimal,
    currency: String,
    paid_at: Option<DateTime<Utc>>,
    payer_name: Option<String>,
    /// `submitted`, `approved`, `rejected`, `refund_pending`, `refunded` or `cancelled`.
    status: String,
    /// Seen by staff only.
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_flags: Option<Vec<String>>,
    reviewed_at: Option<DateTime<Utc>>,
    rejection_code: Option<String>,
    #[schema(value_type = String)]
    refunded: Decimal,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// Parameters of [`list`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// In this state only.
    status: Option<String>,
    /// Of this registration only.
    registration_id: Option<Uuid>,
    /// 1 to 100 items; 25 by default.
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    cursor: Option<Uuid>,
}

/// Report a payment
#[utoipa::path(post, path = "/v1/payments", tag = "payments", request_body = NewPayment,
    responses((status = 202, description = "Safe with the broker.", body = OperationView),
              (status = 200, description = "Settled within `Prefer: wait`.", body = OperationView)),
    security(("bearer" = [])))]
async fn submit(
    State(app): State<App>,
    caller: Caller,
    asked: Asked,
    Json(body): Json<NewPayment>,
) -> ApiResult<Response> {
    caller.require(&[Role::Student])?;
    let command = SubmitPayment {
        registration_id: body.registration_id,
        student_id: caller.user_id,
        method: body.method,
        transaction_id: body.transaction_id,
        amount: body.amount,
        currency: body.currency,
        paid_at: body.paid_at,
        payer_name: body.payer_name,
        proof_file_id: body.proof_file_id,
    };
    let principal = caller.principal();
    ingest::accept(&app, asked, principal, &principal.to_string(), "POST /v1/payments", command).await
}

/// Approve a payment
#[utoipa::path(post, path = "/v1/payments/{id}/approve", tag = "payments", params(("id" = Uuid, Path)),
    request_body = Option<Approval>,
    responses((status = 202, description = "Safe with the broker.", body = OperationView)), security(("bearer" = [])))]
async fn approve(
    State(app): State<App>,
    caller: Caller,
    Id(payment_id): Id,
    asked: Asked,
    OptionalJson(Approval { note }): OptionalJson<Approval>,
) -> ApiResult<Response> {
    let command = DecidePayment { payment_id, decision: PaymentDecision::Approve, note };
    decide(&app, caller, asked, "approve", command).await
}

/// Reject a payment
#[utoipa::path(post, path = "/v1/payments/{id}/reject", tag = "payments", params(("id" = Uuid, Path)),
    request_body = Rejection,
    responses((status = 202, description = "Safe with the broker.", body = OperationView)), security(("bearer" = [])))]
async fn reject(
    State(app): State<App>,
    caller: Caller,
    Id(payment_id): Id,
    asked: Asked,
    Json(Rejection { rejection_code, note }): Json<Rejection>,
) -> ApiResult<Response> {
    let command = DecidePayment { payment_id, decision: PaymentDecision::Reject { code: rejection_code }, note };
    decide(&app, caller, asked, "reject", command).await
}

async fn decide(app: &App, caller: Caller, asked: Asked, verb: &str, command: DecidePayment) -> ApiResult<Response> {
    caller.require(DECIDERS)?;
    let route = format!("POST /v1/payments/{}/{verb}", command.payment_id);
    let principal = caller.principal();
    ingest::accept(app, asked, principal, &principal.to_string(), &route, command).await
}

/// Decide many payments
#[utoipa::path(post, path = "/v1/payments/decisions", tag = "payments", request_body = Decisions,
    responses((status = 202, description = "All safe with the broker, each its own operation.", body = Operations)),
    security(("bearer" = [])))]
async fn decide_many(
    State(app): State<App>,
    caller: Caller,
    asked: Asked,
    Json(Decisions { items }): Json<Decisions>,
) -> ApiResult<Response> {
    caller.require(DECIDERS)?;
    check_decisions(&items).map_err(ApiError::validation)?;
    let principal = caller.principal();
    let scope = principal.to_string();
    let commands = items.into_iter().map(|item| {
        let id = asked.operation_id(&scope, &format!("POST /v1/payments/decisions/{}", item.payment_id));
        (id, item.into_command())
    });
    let items = ingest::accept_all(&app, principal, commands).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(Operations { items })).into_response())
}

impl Decision {
    fn into_command(self) -> DecidePayment {
        let decision = match self.verdict {
            VerdictWord::Approve => PaymentDecision::Approve,
            VerdictWord::Reject => PaymentDecision::Reject { code: self.rejection_code.unwrap_or_default() },
        };
        DecidePayment { payment_id: self.payment_id, decision, note: self.note }
    }
}

fn check_decisions(items: &[Decision]) -> Result<(), Vec<FieldError>> {
    if items.is_empty() || items.len() > DECISIONS_MAX {
        let message = format!("must have 1 to {DECISIONS_MAX} entries");
        return Err(vec![FieldError::new("items", if items.is_empty() { "too_few" } else { "too_many" }, message)]);
    }
    let mut seen = std::collections::HashSet::new();
    let mut wrong = Vec::new();
    for (n, item) in items.iter().enumerate() {
        if !seen.insert(item.payment_id) {
            wrong.push(FieldError::new(
                format!("items[{n}].payment_id"),
                "repeated",
                "must not stand in the list twice",
            ));
        }
        if item.verdict == VerdictWord::Approve && item.rejection_code.is_some() {
            let field = format!("items[{n}].rejection_code");
            wrong.push(FieldError::new(field, "not_allowed", "must not be sent with an approval"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Payments: one's own, or everybody's for staff
#[utoipa::path(get, path = "/v1/payments", tag = "payments", params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<PaymentView>)), security(("bearer" = [])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> ApiResult<Response> {
    let limit = page::limit(query.limit)?;
    let rows = sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    CASE WHEN $1::uuid IS NULL THEN risk_flags END AS risk_flags,
                    reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    ($1::uuid IS NULL
                     OR registration_id = ANY (ARRAY (SELECT r.id FROM student_registrations r WHERE r.student_id = $1)))
                    -- Staff read by ranges, in the order of (status, id): where most rows are of the status the planner
                    -- would otherwise read all by id, and skip whatever came since.
                    AND ($2::text IS NULL
                         OR ($1::uuid IS NOT NULL AND status = $2)
                         OR ($1::uuid IS NULL AND status >= $2
                             AND (status, id) < ($2, COALESCE($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))))
                    AND ($3::uuid IS NULL OR registration_id = $3)
                    AND ($4::uuid IS NULL OR id < $4)
           ORDER BY CASE WHEN $1::uuid IS NULL AND $2::text IS NOT NULL THEN status END DESC, id DESC
           LIMIT    $5"#,
        caller.own_rows_only(),
        query.status,
        query.registration_id,
        query.cursor,
        limit + 1
    )
    .fetch_all(&app.db)
    .await?;
    Ok(page::respond(&headers, &Page::of(rows, limit, |row| row.id)))
}

/// One payment
#[utoipa::path(get, path = "/v1/payments/{id}", tag = "payments", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The payment.", body = PaymentView)), security(("bearer" = [])))]
async fn show(State(app): State<App>, caller: Caller, Id(id): Id, headers: HeaderMap) -> ApiResult<Response> {
    let row = sqlx::query_as!(
        PaymentView,
        r#"SELECT id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                  CASE WHEN $2::uuid IS NULL THEN risk_flags END AS risk_flags,
                  reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM   payments
           WHERE  id = $1 AND ($2::uuid IS NULL OR student_id = $2)"#,
        id,
        caller.own_rows_only()
    )
    .fetch_optional(&app.db)
    .await?;
    Ok(page::respond(&headers, &row.ok_or_else(ApiError::not_found)?))
}

/// Money travels as text: a JSON number may have lost a paisa before it came here.
fn decimal_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    struct DecimalText;

    impl de::Visitor<'_> for DecimalText {
        type Value = Decimal;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a decimal in a JSON string, such as \"1180.00\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
            Decimal::from_str_exact(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_str(DecimalText)
}
