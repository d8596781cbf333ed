//! Reads of registrations: a statement for each scope.

use sqlx::PgPool;
use uuid::Uuid;

use super::views::{RegistrationFilter, RegistrationStatusFilter as Status, RegistrationView, TaughtRegistrationView};
use crate::extract::List;

/// Reads a page of all registrations.
pub async fn list_all(db: &PgPool, list: &List<RegistrationFilter>) -> sqlx::Result<Vec<RegistrationView>> {
    let status = list.filter.status;
    sqlx::query_as!(
        RegistrationView,
        "SELECT   id, request_no, student_id, batch_id, status, provisional, fee, discount, tax, amount_due, amount_paid,
                  currency, hold_expires_at, waitlist_seq, reason, created_at, updated_at
         FROM     student_registrations
         WHERE    ($1::text IS NULL OR status = $1 AND phase = $2)
           AND    ($3::uuid IS NULL OR batch_id = $3)
           AND    ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC
         LIMIT    $5",
        status as Option<Status>,
        status.map(Status::phase),
        list.filter.batch_id,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads a page of one student's registrations.
pub async fn list_of_student(
    db: &PgPool,
    student_id: Uuid,
    list: &List<RegistrationFilter>,
) -> sqlx::Result<Vec<RegistrationView>> {
    sqlx::query_as!(
        RegistrationView,
        "SELECT   id, request_no, student_id, batch_id, status, provisional, fee, discount, tax, amount_due, amount_paid,
                  currency, hold_expires_at, waitlist_seq, reason, created_at, updated_at
         FROM     student_registrations
         WHERE    student_id = $1
           AND    ($2::text IS NULL OR status = $2)
           AND    ($3::uuid IS NULL OR batch_id = $3)
           AND    ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC
         LIMIT    $5",
        student_id,
        list.filter.status as Option<Status>,
        list.filter.batch_id,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads a page of the registrations for the course batches that this user teaches.
pub async fn list_taught_by(
    db: &PgPool,
    teacher_id: Uuid,
    list: &List<RegistrationFilter>,
) -> sqlx::Result<Vec<TaughtRegistrationView>> {
    sqlx::query_as!(
        TaughtRegistrationView,
        r#"SELECT    r.id, r.request_no, r.student_id, p.full_name AS "student_name?", r.batch_id, r.status, r.provisional,
                     r.waitlist_seq, r.created_at, r.updated_at
           FROM      student_registrations r
           JOIN      batches b ON b.id = r.batch_id
           LEFT JOIN user_profiles p ON p.user_id = r.student_id
           WHERE     b.instructor_id = $1 AND b.deleted_at IS NULL
             AND     ($2::text IS NULL OR r.status = $2)
             AND     ($3::uuid IS NULL OR r.batch_id = $3)
             AND     ($4::uuid IS NULL OR r.id < $4)
           ORDER BY  r.id DESC
           LIMIT     $5"#,
        teacher_id,
        list.filter.status as Option<Status>,
        list.filter.batch_id,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads any registration.
pub async fn show_any(db: &PgPool, id: Uuid) -> sqlx::Result<Option<RegistrationView>> {
    sqlx::query_as!(
        RegistrationView,
        "SELECT id, request_no, student_id, batch_id, status, provisional, fee, discount, tax, amount_due, amount_paid,
                currency, hold_expires_at, waitlist_seq, reason, created_at, updated_at
         FROM   student_registrations
         WHERE  id = $1",
        id
    )
    .fetch_optional(db)
    .await
}

/// Reads a registration of this student.
pub async fn show_of_student(db: &PgPool, id: Uuid, student_id: Uuid) -> sqlx::Result<Option<RegistrationView>> {
    let found = show_any(db, id).await?;
    Ok(found.filter(|registration| registration.student_id == student_id))
}

/// Reads a registration for a course batch that this user teaches.
pub async fn show_taught_by(db: &PgPool, id: Uuid, teacher_id: Uuid) -> sqlx::Result<Option<TaughtRegistrationView>> {
    sqlx::query_as!(
        TaughtRegistrationView,
        r#"SELECT    r.id, r.request_no, r.student_id, p.full_name AS "student_name?", r.batch_id, r.status, r.provisional,
                     r.waitlist_seq, r.created_at, r.updated_at
           FROM      student_registrations r
           JOIN      batches b ON b.id = r.batch_id
           LEFT JOIN user_profiles p ON p.user_id = r.student_id
           WHERE     r.id = $1 AND b.instructor_id = $2 AND b.deleted_at IS NULL"#,
        id,
        teacher_id
    )
    .fetch_optional(db)
    .await
}
