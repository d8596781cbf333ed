//! Registrations on the wire.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::{Listing, NewestFirst};

/// A new registration. Visitors identify themselves; signed-in students send only `batch_id` and `answers`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRegistration {
    /// The batch.
    pub batch_id: Uuid,
    /// Visitors: the address that the magic link goes to.
    pub email: Option<String>,
    /// Visitors: 1 to 200 characters.
    pub full_name: Option<String>,
    /// Visitors: 5 to 20 digits, spaces, +, - or brackets.
    pub phone: Option<String>,
    /// Answers to the batch's own questions.
    pub answers: Option<BTreeMap<String, String>>,
}

/// The cancellation of a registration.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancellation {
    /// At most 500 characters.
    pub reason: Option<String>,
}

/// The admission of an applicant: no members.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrationApproval {}

/// The rejection of an applicant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrationRejection {
    /// Sent to the applicant; at most 500 characters.
    pub reason: String,
}

/// A registration, for its student and for staff.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegistrationView {
    /// `student_registrations.id`.
    pub id: Uuid,
    /// For people.
    pub request_no: String,
    /// The student.
    pub student_id: Uuid,
    /// The batch.
    pub batch_id: Uuid,
    /// `seat_held`, `waitlisted`, `confirmed`, ….
    pub status: String,
    /// `true` until the mailed link is opened.
    pub provisional: bool,
    /// Before tax and discount.
    #[schema(value_type = String)]
    pub fee: Decimal,
    /// Off the fee.
    #[schema(value_type = String)]
    pub discount: Decimal,
    /// On top.
    #[schema(value_type = String)]
    pub tax: Decimal,
    /// In all, not what remains.
    #[schema(value_type = String)]
    pub amount_due: Decimal,
    /// The part of it that was paid.
    #[schema(value_type = String)]
    pub amount_paid: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// The end of the hold: the seat is then given up unless it is paid for.
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// The place in the order of the waitlist; not the number of people before.
    pub waitlist_seq: Option<i64>,
    /// The reason of a rejection or cancellation.
    pub reason: Option<String>,
    /// The time of creation.
    pub created_at: DateTime<Utc>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
}

/// A registration for the teacher of its batch: without money, answers and contacts.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaughtRegistrationView {
    /// `student_registrations.id`.
    pub id: Uuid,
    /// For people.
    pub request_no: String,
    /// The student.
    pub student_id: Uuid,
    /// The student's name.
    pub student_name: Option<String>,
    /// The batch.
    pub batch_id: Uuid,
    /// `seat_held`, `waitlisted`, `confirmed`, ….
    pub status: String,
    /// `true` until the mailed link is opened.
    pub provisional: bool,
    /// The place in the order of the waitlist; not the number of people before.
    pub waitlist_seq: Option<i64>,
    /// The time of creation.
    pub created_at: DateTime<Utc>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
}

/// The states of a registration that a list can be filtered by.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RegistrationStatusFilter {
    /// Not settled yet.
    Submitted,
    /// Waiting for an admin's review.
    UnderReview,
    /// A seat, until the hold ends.
    SeatHeld,
    /// A seat, while an accountant checks the payment.
    PaymentSubmitted,
    /// No seat yet.
    Waitlisted,
    /// A seat for good.
    Confirmed,
    /// The hold ended.
    Expired,
    /// Cancelled.
    Cancelled,
    /// Not admitted.
    Rejected,
}

impl RegistrationStatusFilter {
    /// Returns `student_registrations.phase`, which the index of a state is on.
    pub const fn phase(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::UnderReview => "under_review",
            Self::SeatHeld | Self::PaymentSubmitted => "held",
            Self::Waitlisted => "waitlisted",
            Self::Confirmed => "confirmed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

/// Filters of the list of registrations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RegistrationFilter {
    /// In this state only.
    #[param(inline)]
    pub status: Option<RegistrationStatusFilter>,
    /// Of this batch only.
    pub batch_id: Option<Uuid>,
}

impl Listing for RegistrationFilter {
    const NAME: &'static str = "registrations";
    type Key = Uuid;
    type Sort = NewestFirst;
}
