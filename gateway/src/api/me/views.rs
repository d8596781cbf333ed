//! The signed-in user on the wire.

use chrono::{DateTime, NaiveDate, Utc};
use contracts::validation::Checks;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    commands::edit::Versioned,
    extract::Patch,
    http::{ApiError, ApiResult},
};

/// A JSON object in a profile, at most.
const OBJECT_BYTES_MAX: usize = 4_096;

/// My account and profile.
#[derive(Serialize, ToSchema)]
pub struct Me {
    /// `users.id`.
    pub id: Uuid,
    /// The address of the account.
    pub email: String,
    /// As typed.
    pub phone: Option<String>,
    /// `student`, `teacher`, `accountant` or `admin`.
    pub role: String,
    /// The time of the proof of the address.
    pub email_verified_at: Option<DateTime<Utc>>,
    /// The time of the last sign-in.
    pub last_login_at: Option<DateTime<Utc>>,
    /// `false`: sign in by a mailed link.
    pub has_password: bool,
    /// As mails address the user.
    pub full_name: Option<String>,
    /// A part of the name.
    pub given_name: Option<String>,
    /// A part of the name.
    pub family_name: Option<String>,
    /// The date of birth.
    pub date_of_birth: Option<NaiveDate>,
    /// For minors.
    pub guardian_name: Option<String>,
    /// For minors.
    pub guardian_phone: Option<String>,
    /// A postal address.
    pub address: Option<Value>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// For invoices.
    pub tax_id: Option<String>,
    /// BCP 47.
    pub locale: Option<String>,
    /// IANA name.
    pub timezone: Option<String>,
    /// Notification preferences.
    pub notify_prefs: Option<Value>,
    /// `user_profiles.version`, in the entity tag.
    #[serde(skip)]
    #[schema(ignore)]
    pub version: i64,
}

/// A change of my profile (RFC 7396): absent members stay, null clears.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileChange {
    /// Cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// A part of the name.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub given_name: Patch<String>,
    /// A part of the name.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub family_name: Patch<String>,
    /// The date of birth.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<NaiveDate>)]
    pub date_of_birth: Patch<NaiveDate>,
    /// For minors.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub guardian_name: Patch<String>,
    /// For minors.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub guardian_phone: Patch<String>,
    /// A postal address.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<serde_json::Map<String, Value>>)]
    pub address: Patch<serde_json::Map<String, Value>>,
    /// ISO 3166-1 alpha-2.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub country: Patch<String>,
    /// For invoices.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub tax_id: Patch<String>,
    /// BCP 47; cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// IANA name; cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_prefs: Option<serde_json::Map<String, Value>>,
}

impl Versioned for Me {
    fn version(&self) -> i64 {
        self.version
    }
}

impl ProfileChange {
    /// Checks every member.
    ///
    /// # Errors
    /// 422 with every bad field.
    pub fn check(&self) -> ApiResult<()> {
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
            if let Some(text) = value.value() {
                checks.line(field, text, max);
            }
        }
        for (field, value) in [("locale", &self.locale), ("timezone", &self.timezone)] {
            if let Some(text) = value {
                checks.line(field, text, 64);
            }
        }
        if let Some(country) = self.country.value() {
            let code = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
            checks.ensure(code, "country", "not_a_country", "must be an ISO 3166-1 code of two capitals, such as IN");
        }
        for (field, object) in [("address", self.address.value()), ("notify_prefs", self.notify_prefs.as_ref())] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_stay_apart() {
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
