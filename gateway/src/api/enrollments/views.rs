//! Enrollments on the wire.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::{Listing, NewestFirst};

/// A student in a batch.
#[derive(Serialize, ToSchema)]
pub struct EnrollmentView {
    /// `enrollments.id`.
    pub id: Uuid,
    /// The student.
    pub student_id: Uuid,
    /// The batch.
    pub batch_id: Uuid,
    /// The registration that led to it.
    pub registration_id: Option<Uuid>,
    /// `active`, `suspended`, `completed`, `withdrawn` or `transferred`.
    pub status: String,
    /// Since when.
    pub enrolled_at: DateTime<Utc>,
    /// Until when.
    pub ended_at: Option<DateTime<Utc>>,
    /// The reason of the end.
    pub end_reason: Option<String>,
    /// The batch's name.
    pub batch_name: String,
    /// The course's title.
    pub course_title: String,
}

/// A student in a batch, for its teacher: with the name, without money and contacts.
#[derive(Serialize, ToSchema)]
pub struct TaughtEnrollmentView {
    /// `enrollments.id`.
    pub id: Uuid,
    /// The student.
    pub student_id: Uuid,
    /// The student's name.
    pub student_name: Option<String>,
    /// The batch.
    pub batch_id: Uuid,
    /// `active`, `suspended`, `completed`, `withdrawn` or `transferred`.
    pub status: String,
    /// Since when.
    pub enrolled_at: DateTime<Utc>,
    /// Until when.
    pub ended_at: Option<DateTime<Utc>>,
    /// The batch's name.
    pub batch_name: String,
    /// The course's title.
    pub course_title: String,
}

/// The states of an enrollment that a list can be filtered by.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum EnrollmentStatusFilter {
    /// In class.
    Active,
    /// Kept out for a while.
    Suspended,
    /// Finished.
    Completed,
    /// Left.
    Withdrawn,
    /// Moved to another batch.
    Transferred,
}

/// Filters of the list of enrollments.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EnrollmentFilter {
    /// In this state only.
    #[param(inline)]
    pub status: Option<EnrollmentStatusFilter>,
    /// Of this batch only.
    pub batch_id: Option<Uuid>,
    /// Of this student only; not for students.
    pub student_id: Option<Uuid>,
}

impl Listing for EnrollmentFilter {
    const NAME: &'static str = "enrollments";
    type Key = Uuid;
    type Sort = NewestFirst;
}
