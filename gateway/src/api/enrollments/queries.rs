//! Reads of enrollments: a statement for each scope.

use sqlx::PgPool;
use uuid::Uuid;

use super::views::{EnrollmentFilter, EnrollmentStatusFilter as Status, EnrollmentView, TaughtEnrollmentView};
use crate::extract::List;

/// Reads a page of all enrollments.
pub async fn list_all(db: &PgPool, list: &List<EnrollmentFilter>) -> sqlx::Result<Vec<EnrollmentView>> {
    sqlx::query_as!(
        EnrollmentView,
        "SELECT   enrollments.id, enrollments.student_id, enrollments.batch_id, enrollments.registration_id,
                  enrollments.status, enrollments.enrolled_at, enrollments.ended_at, enrollments.end_reason,
                  batches.name AS batch_name, courses.title AS course_title
         FROM     enrollments
         JOIN     batches ON batches.id = enrollments.batch_id
         JOIN     courses ON courses.id = batches.course_id
         WHERE    ($1::uuid IS NULL OR enrollments.student_id = $1)
           AND    ($2::uuid IS NULL OR enrollments.batch_id = $2)
           AND    ($3::text IS NULL OR enrollments.status = $3)
           AND    ($4::uuid IS NULL OR enrollments.id < $4)
         ORDER BY enrollments.id DESC
         LIMIT    $5",
        list.filter.student_id,
        list.filter.batch_id,
        list.filter.status as Option<Status>,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads a page of one student's enrollments; another student in the filter has none.
pub async fn list_of_student(
    db: &PgPool,
    student_id: Uuid,
    list: &List<EnrollmentFilter>,
) -> sqlx::Result<Vec<EnrollmentView>> {
    if list.filter.student_id.is_some_and(|filtered| filtered != student_id) {
        return Ok(Vec::new());
    }
    sqlx::query_as!(
        EnrollmentView,
        "SELECT   enrollments.id, enrollments.student_id, enrollments.batch_id, enrollments.registration_id,
                  enrollments.status, enrollments.enrolled_at, enrollments.ended_at, enrollments.end_reason,
                  batches.name AS batch_name, courses.title AS course_title
         FROM     enrollments
         JOIN     batches ON batches.id = enrollments.batch_id
         JOIN     courses ON courses.id = batches.course_id
         WHERE    enrollments.student_id = $1
           AND    ($2::uuid IS NULL OR enrollments.batch_id = $2)
           AND    ($3::text IS NULL OR enrollments.status = $3)
           AND    ($4::uuid IS NULL OR enrollments.id < $4)
         ORDER BY enrollments.id DESC
         LIMIT    $5",
        student_id,
        list.filter.batch_id,
        list.filter.status as Option<Status>,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads a page of the enrollments in the course batches that this user teaches.
pub async fn list_taught_by(
    db: &PgPool,
    teacher_id: Uuid,
    list: &List<EnrollmentFilter>,
) -> sqlx::Result<Vec<TaughtEnrollmentView>> {
    sqlx::query_as!(
        TaughtEnrollmentView,
        r#"SELECT    e.id, e.student_id, p.full_name AS "student_name?", e.batch_id, e.status, e.enrolled_at, e.ended_at,
                     b.name AS batch_name, c.title AS course_title
           FROM      enrollments e
           JOIN      batches b ON b.id = e.batch_id
           JOIN      courses c ON c.id = b.course_id
           LEFT JOIN user_profiles p ON p.user_id = e.student_id
           WHERE     b.instructor_id = $1 AND b.deleted_at IS NULL
             AND     ($2::uuid IS NULL OR e.student_id = $2)
             AND     ($3::uuid IS NULL OR e.batch_id = $3)
             AND     ($4::text IS NULL OR e.status = $4)
             AND     ($5::uuid IS NULL OR e.id < $5)
           ORDER BY  e.id DESC
           LIMIT     $6"#,
        teacher_id,
        list.filter.student_id,
        list.filter.batch_id,
        list.filter.status as Option<Status>,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}
