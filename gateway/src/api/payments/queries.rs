//! Reads of payments: a statement for each scope, order and kind of filter that has an index of its own.

use sqlx::PgPool;
use uuid::Uuid;

use super::views::{PaymentFilter, PaymentStatusFilter as Status, PaymentView};
use crate::extract::{Age, List};

/// Reads a page of all payments.
pub async fn list_all(db: &PgPool, list: &List<PaymentFilter>) -> sqlx::Result<Vec<PaymentView>> {
    match (list.filter.status, list.sort) {
        (Some(status), Age::Newest) => list_newest_in(db, status, list).await,
        (Some(status), Age::Oldest) => list_oldest_in(db, status, list).await,
        (None, Age::Newest) => list_newest(db, list).await,
        (None, Age::Oldest) => list_oldest(db, list).await,
    }
}

async fn list_newest(db: &PgPool, list: &List<PaymentFilter>) -> sqlx::Result<Vec<PaymentView>> {
    sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    risk_flags AS "risk_flags?", reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    ($1::uuid IS NULL OR registration_id = $1)
             AND    ($2::uuid IS NULL OR id < $2)
           ORDER BY id DESC
           LIMIT    $3"#,
        list.filter.registration_id,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

async fn list_oldest(db: &PgPool, list: &List<PaymentFilter>) -> sqlx::Result<Vec<PaymentView>> {
    sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    risk_flags AS "risk_flags?", reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    ($1::uuid IS NULL OR registration_id = $1)
             AND    ($2::uuid IS NULL OR id > $2)
           ORDER BY id
           LIMIT    $3"#,
        list.filter.registration_id,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// A page of one state, newest first, in the order of the index (status, id): where most rows are in this state the
/// planner would otherwise read all rows by id, and skip whatever came since.
async fn list_newest_in(db: &PgPool, status: Status, list: &List<PaymentFilter>) -> sqlx::Result<Vec<PaymentView>> {
    let Some(after) = list.after else { return first_newest_in(db, status, list).await };
    sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    risk_flags AS "risk_flags?", reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    status >= $1 AND (status, id) < ($1, $2)
             AND    ($3::uuid IS NULL OR registration_id = $3)
           ORDER BY status DESC, id DESC
           LIMIT    $4"#,
        status as Status,
        after,
        list.filter.registration_id,
        list.rows()
    )
    .fetch_all(db)
    .await
}

async fn first_newest_in(db: &PgPool, status: Status, list: &List<PaymentFilter>) -> sqlx::Result<Vec<PaymentView>> {
    sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    risk_flags AS "risk_flags?", reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    status >= $1 AND status <= $1
             AND    ($2::uuid IS NULL OR registration_id = $2)
           ORDER BY status DESC, id DESC
           LIMIT    $3"#,
        status as Status,
        list.filter.registration_id,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// A page of one state, oldest first: the accountants' queue. In the order of the index, as [`list_newest_in`].
async fn list_oldest_in(db: &PgPool, status: Status, list: &List<PaymentFilter>) -> sqlx::Result<Vec<PaymentView>> {
    let Some(after) = list.after else { return first_oldest_in(db, status, list).await };
    sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    risk_flags AS "risk_flags?", reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    status <= $1 AND (status, id) > ($1, $2)
             AND    ($3::uuid IS NULL OR registration_id = $3)
           ORDER BY status, id
           LIMIT    $4"#,
        status as Status,
        after,
        list.filter.registration_id,
        list.rows()
    )
    .fetch_all(db)
    .await
}

async fn first_oldest_in(db: &PgPool, status: Status, list: &List<PaymentFilter>) -> sqlx::Result<Vec<PaymentView>> {
    sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    risk_flags AS "risk_flags?", reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    status >= $1 AND status <= $1
             AND    ($2::uuid IS NULL OR registration_id = $2)
           ORDER BY status, id
           LIMIT    $3"#,
        status as Status,
        list.filter.registration_id,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads a page of one student's payments, through the index of their registrations; without the risk flags.
pub async fn list_of_student(
    db: &PgPool,
    student_id: Uuid,
    list: &List<PaymentFilter>,
) -> sqlx::Result<Vec<PaymentView>> {
    match list.sort {
        Age::Newest => newest_of_student(db, student_id, list).await,
        Age::Oldest => oldest_of_student(db, student_id, list).await,
    }
}

async fn newest_of_student(
    db: &PgPool,
    student_id: Uuid,
    list: &List<PaymentFilter>,
) -> sqlx::Result<Vec<PaymentView>> {
    sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    NULL::text[] AS risk_flags, reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    registration_id = ANY (ARRAY (SELECT r.id FROM student_registrations r WHERE r.student_id = $1))
             AND    ($2::text IS NULL OR status = $2)
             AND    ($3::uuid IS NULL OR registration_id = $3)
             AND    ($4::uuid IS NULL OR id < $4)
           ORDER BY id DESC
           LIMIT    $5"#,
        student_id,
        list.filter.status as Option<Status>,
        list.filter.registration_id,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

async fn oldest_of_student(
    db: &PgPool,
    student_id: Uuid,
    list: &List<PaymentFilter>,
) -> sqlx::Result<Vec<PaymentView>> {
    sqlx::query_as!(
        PaymentView,
        r#"SELECT   id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                    NULL::text[] AS risk_flags, reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM     payments
           WHERE    registration_id = ANY (ARRAY (SELECT r.id FROM student_registrations r WHERE r.student_id = $1))
             AND    ($2::text IS NULL OR status = $2)
             AND    ($3::uuid IS NULL OR registration_id = $3)
             AND    ($4::uuid IS NULL OR id > $4)
           ORDER BY id
           LIMIT    $5"#,
        student_id,
        list.filter.status as Option<Status>,
        list.filter.registration_id,
        list.after,
        list.rows()
    )
    .fetch_all(db)
    .await
}

/// Reads any payment.
pub async fn show_any(db: &PgPool, id: Uuid) -> sqlx::Result<Option<PaymentView>> {
    sqlx::query_as!(
        PaymentView,
        r#"SELECT id, registration_id, student_id, method, transaction_id, amount, currency, paid_at, payer_name, status,
                  risk_flags AS "risk_flags?", reviewed_at, rejection_code, refunded, created_at, updated_at
           FROM   payments
           WHERE  id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// Reads a payment of this student, without the risk flags.
pub async fn show_of_student(db: &PgPool, id: Uuid, student_id: Uuid) -> sqlx::Result<Option<PaymentView>> {
    let found = show_any(db, id).await?.filter(|payment| payment.student_id == student_id);
    Ok(found.map(|payment| PaymentView { risk_flags: None, ..payment }))
}
