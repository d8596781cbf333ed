//! The status of a registration. Three of them hold a seat, and `batches.seats_taken` counts exactly those rows.

use serde::{Deserialize, Serialize};

/// `student_registrations.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RegistrationStatus {
    /// Not decided yet.
    Submitted,
    /// An admin has to admit or reject the applicant.
    UnderReview,
    /// A seat is held until the hold ends.
    SeatHeld,
    /// A seat is held while an accountant reviews the payment.
    PaymentSubmitted,
    /// A place on the waitlist.
    Waitlisted,
    /// The seat is the student's.
    Confirmed,
    /// The hold ended without a payment.
    Expired,
    /// Cancelled by the student or an admin.
    Cancelled,
    /// Rejected by an admin.
    Rejected,
}

impl RegistrationStatus {
    /// Returns the name in the database and in results.
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

    /// Returns true where `batches.seats_taken` counts it.
    pub const fn has_seat(self) -> bool {
        matches!(self, Self::SeatHeld | Self::PaymentSubmitted | Self::Confirmed)
    }
}
