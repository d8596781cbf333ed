//! The signed-in user: account, profile, and the sign-ins that are alive.

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, NaiveDate, Utc};
use contracts::validation::Checks;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::{Caller, sessions_of_caller},
    json_body::Json,
    page,
    problem_response::{ApiError, ApiResult},
    state::App,
};

/// A JSON object in a profile, at most.
const OBJECT_BYTES_MAX: usize = 4_096;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(show, change)).merge(sessions_of_caller())
}

/// My account and profile.
#[derive(Serialize, ToSchema)]
struct Me {
    id: Uuid,
    email: String,
    phone: Option<String>,
    /// `student`, `teacher`, `accountant` or `admin`.
    role: String,
    email_verified_at: Option<DateTime<Utc>>,
    last_login_at: Option<DateTime<Utc>>,
    /// Whether a password is set; without one, sign in by a mailed link.
    has_password: bool,
    full_name: Option<String>,
    given_name: Option<String>,
    family_name: Option<String>,
    date_of_birth: Option<NaiveDate>,
    guardian_name: Option<String>,
    guardian_phone: Option<String>,
    address: Option<Value>,
    /// ISO 3166-1 alpha-2.
    country: Option<String>,
    tax_id: Option<String>,
    /// BCP 47.
    locale: Option<String>,
    /// IANA name.
    timezone: Option<String>,
    notify_prefs: Option<Value>,
}

/// What to change of my profile (RFC 7396): what is absent stays, what is null is cleared.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProfileChange {
    /// Cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    full_name: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    given_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    family_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    date_of_birth: Option<Option<NaiveDate>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    guardian_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    guardian_phone: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    address: Option<Option<serde_json::Map<String, Value>>>,
    /// ISO 3166-1 alpha-2.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    country: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    tax_id: Option<Option<String>>,
    /// BCP 47; cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    /// IANA name; cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    /// Cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    notify_prefs: Option<serde_json::Map<String, Value>>,
}

/// Tells null from absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl ProfileChange {
    fn check(&self) -> ApiResult<()> {
        let mut checks = Checks::new();
        if let Some(name) = &self.full_name {
            checks.line("full_name", name, 200);
        }
        for (field, value, max) in [
            ("given_name", &self.given_name, 100),
            ("family_name", &self.family_name, 100),
            ("guardian_name", &self.guardian_name, 200),
            ("guardian_phone", &self.guardian_phone, 32),
            ("tax_id", &self.tax_id, 32),
        ] {
            if let Some(Some(text)) = value {
                checks.line(field, text, max);
            }
        }
        for (field, value) in [("locale", &self.locale), ("timezone", &self.timezone)] {
            if let Some(text) = value {
                checks.line(field, text, 64);
            }
        }
        if let Some(Some(country)) = &self.country {
            let code = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
            checks.ensure(code, "country", "not_a_country", "must be an ISO 3166-1 code of two capitals, such as IN");
        }
        for (field, object) in
            [("address", self.address.as_ref().and_then(Option::as_ref)), ("notify_prefs", self.notify_prefs.as_ref())]
        {
            let text = object.map(|object| serde_json::to_string(object).unwrap_or_default()).unwrap_or_default();
            checks.ensure(text.len() <= OBJECT_BYTES_MAX, field, "too_long", "must have at most 4096 bytes").ensure(
                !text.contains("\\u0000"),
                field,
                "control_character",
                "must not contain NUL",
            );
        }
        checks.finish().map_err(ApiError::validation)
    }
}

/// My account and profile.
#[utoipa::path(
    get,
    path = "/v1/me",
    tag = "me",
    responses((status = 200, description = "Account and profile", body = Me)),
    security(("bearer" = []))
)]
async fn show(State(app): State<App>, caller: Caller, headers: HeaderMap) -> ApiResult<Response> {
    let me = sqlx::query_as!(
        Me,
        r#"SELECT    users.id, users.email::text AS "email!", users.phone, users.role, users.email_verified_at,
                     users.last_login_at, users.password_hash IS NOT NULL AS "has_password!", p.full_name AS "full_name?",
                     p.given_name, p.family_name, p.date_of_birth, p.guardian_name, p.guardian_phone, p.address, p.country,
                     p.tax_id, p.locale AS "locale?", p.timezone AS "timezone?", p.notify_prefs AS "notify_prefs?"
           FROM      users
           LEFT JOIN user_profiles AS p ON p.user_id = users.id
           WHERE     users.id = $1 AND users.deleted_at IS NULL"#,
        caller.user_id
    )
    .fetch_optional(&app.db)
    .await?
    .ok_or_else(ApiError::not_found)?;
    Ok(page::respond(&headers, &me))
}

/// Change my profile.
#[utoipa::path(
    patch,
    path = "/v1/me",
    tag = "me",
    request_body = ProfileChange,
    responses((status = 200, description = "Account and profile, as they are now", body = Me)),
    security(("bearer" = []))
)]
async fn change(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(change): Json<ProfileChange>,
) -> ApiResult<Response> {
    change.check()?;
    let given = serde_json::to_value(&change).unwrap_or_default();
    let changed = sqlx::query!(
        "UPDATE user_profiles
         SET    full_name      = coalesce(change->>'full_name', full_name),
                given_name     = CASE WHEN change ? 'given_name'     THEN change->>'given_name'             ELSE given_name     END,
                family_name    = CASE WHEN change ? 'family_name'    THEN change->>'family_name'            ELSE family_name    END,
                date_of_birth  = CASE WHEN change ? 'date_of_birth'  THEN (change->>'date_of_birth')::date  ELSE date_of_birth  END,
                guardian_name  = CASE WHEN change ? 'guardian_name'  THEN change->>'guardian_name'          ELSE guardian_name  END,
                guardian_phone = CASE WHEN change ? 'guardian_phone' THEN change->>'guardian_phone'         ELSE guardian_phone END,
                address        = CASE WHEN change ? 'address'        THEN nullif(change->'address', 'null') ELSE address        END,
                country        = CASE WHEN change ? 'country'        THEN change->>'country'                ELSE country        END,
                tax_id         = CASE WHEN change ? 'tax_id'         THEN change->>'tax_id'                 ELSE tax_id         END,
                locale         = coalesce(change->>'locale', locale),
                timezone       = coalesce(change->>'timezone', timezone),
                notify_prefs   = coalesce(change->'notify_prefs', notify_prefs)
         FROM   (SELECT $2::jsonb) AS given(change)
         WHERE  user_id = $1",
        caller.user_id,
        given
    )
    .execute(&app.db)
    .await?;
    if changed.rows_affected() == 0 {
        return Err(ApiError::not_found());
    }
    show(State(app), caller, without_conditions(headers)).await
}

/// The answer to a change is sent whatever the client has.
fn without_conditions(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(axum::http::header::IF_NONE_MATCH);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_are_told_apart() {
        let change: ProfileChange = serde_json::from_str(r#"{"country":null,"given_name":"Asha"}"#).expect("reads");
        assert_eq!(
            serde_json::to_value(&change).expect("json"),
            serde_json::json!({ "country": null, "given_name": "Asha" })
        );
        assert!(change.check().is_ok());
    }

    #[test]
    fn bad_fields_are_refused() {
        for bad in
            [r#"{"country":"India"}"#, r#"{"full_name":" "}"#, r#"{"address":{"a":"\u0000"}}"#, r#"{"locale":"e\nn"}"#]
        {
            let change: ProfileChange = serde_json::from_str(bad).expect("reads");
            assert!(change.check().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<ProfileChange>(r#"{"role":"admin"}"#).is_err());
    }
}
