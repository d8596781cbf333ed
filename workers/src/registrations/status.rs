//! The states of a registration. Three of them hold a seat, and `batches.seats_taken` counts exactly those rows.

use serde::{Deserialize, Serialize};

/// `student_registrations.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RegistrationStatus {
    /// Just arrived.
    Submitted,
    /// An admin has to let the applicant in.
    UnderReview,
    /// A seat, until the hold ends.
    SeatHeld,
    /// A seat, while an accountant looks at the payment.
    PaymentSubmitted,
    /// No seat yet.
    Waitlisted,
    /// A seat for good.
    Confirmed,
    /// The hold ended.
    Expired,
    /// Given up.
    Cancelled,
    /// Not admitted.
    Rejected,
}

impl RegistrationStatus {
    /// The name in the database and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::UnderReview => "under_review",
            Self::SeatHeld => "seat_held",
            Self::PaymentSubmitted => "payment_submitted",
            Self::Waitlisted => "waitlisted",
            Self::Confirmed => "confirmed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }

    /// Whether a seat is counted for it.
    pub const fn has_seat(self) -> bool {
        matches!(self, Self::SeatHeld | Self::PaymentSubmitted | Self::Confirmed)
    }
}
