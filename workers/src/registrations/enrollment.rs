//! Enrollments of confirmed registrations: one row per student and course batch for ever, revived where there was one.

use std::collections::HashMap;

use contracts::ids;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Registration;
use crate::runtime::Failure;

/// Enrolls the students of these registrations, each on behalf of an operation; returns the enrollments' ids by
/// registration. There is at most one registration per student and course batch among them, as the unique index on active
/// registrations guarantees.
///
/// # Errors
/// The database's.
pub async fn enroll(tx: &mut PgConnection, confirmed: &[(Uuid, Registration)]) -> Result<HashMap<Uuid, Uuid>, Failure> {
    if confirmed.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"
        INSERT INTO enrollments AS e (id, student_id, batch_id, registration_id, status, operation_id)
        SELECT n.id, n.student_id, n.batch_id, n.registration_id, 'active', n.operation_id
        FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[])
             AS n (id, student_id, batch_id, registration_id, operation_id)
        ORDER BY n.student_id, n.batch_id
        ON CONFLICT (student_id, batch_id) DO UPDATE
        SET registration_id = EXCLUDED.registration_id,
            status          = 'active',
            enrolled_at     = now(),
            ended_at        = NULL,
            end_reason      = NULL,
            operation_id    = EXCLUDED.operation_id,
            updated_at      = now()
        RETURNING e.id, e.registration_id AS "registration_id!"
        "#,
        &confirmed.iter().map(|_| ids::new_id()).collect::<Vec<_>>(),
        &confirmed.iter().map(|(_, r)| r.student_id).collect::<Vec<_>>(),
        &confirmed.iter().map(|(_, r)| r.batch_id).collect::<Vec<_>>(),
        &confirmed.iter().map(|(_, r)| r.id).collect::<Vec<_>>(),
        &confirmed.iter().map(|(operation_id, _)| *operation_id).collect::<Vec<_>>(),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.registration_id, row.id)).collect())
}
