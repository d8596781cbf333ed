//! Rows in `user_tokens` for mailed links that sign a student in and confirm a registration. The secret is computed from
//! the row's id when the mail is rendered; no queue and no table ever holds it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::ids;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::runtime::Failure;

/// Creates a link for each `(student, registration, end of the hold)`, valid until that end but at least for 24 hours;
/// returns their token ids by registration.
///
/// # Errors
/// The database's.
pub async fn create(
    tx: &mut PgConnection,
    links: impl IntoIterator<Item = (Uuid, Uuid, Option<DateTime<Utc>>)>,
) -> Result<HashMap<Uuid, Uuid>, Failure> {
    let links: Vec<(Uuid, _)> = links.into_iter().map(|link| (ids::new_id(), link)).collect();
    if links.is_empty() {
        return Ok(HashMap::new());
    }
    sqlx::query!(
        r#"
        INSERT INTO user_tokens (id, user_id, purpose, registration_id, expires_at)
        SELECT n.id, n.user_id, 'magic_link', n.registration_id, GREATEST(n.hold_end, now() + interval '24 hours')
        FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS n (id, user_id, registration_id, hold_end)
        "#,
        &links.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        &links.iter().map(|(_, (user_id, _, _))| *user_id).collect::<Vec<_>>(),
        &links.iter().map(|(_, (_, registration_id, _))| *registration_id).collect::<Vec<_>>(),
        &links.iter().map(|(_, (_, _, hold_end))| *hold_end).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
    )
    .execute(tx)
    .await?;
    Ok(links.into_iter().map(|(id, (_, registration_id, _))| (registration_id, id)).collect())
}
