//! Notifications: rows of a user's inbox, as clients see them in lists and streams.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Mark;

/// A notification in the user's inbox.
#[derive(Debug, Serialize, ToSchema)]
pub struct Notification {
    id: Uuid,
    /// A stable word: `payment_approved`, …
    #[serde(rename = "type")]
    notification_type: String,
    title: String,
    body: String,
    /// References for links.
    data: Value,
    read_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl Notification {
    /// Reads the notifications of each of these users after a mark: with the number of the request, in the order of time,
    /// at most `rows_max` rows each.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn read_missed(
        db: &PgPool,
        requests: &[(usize, Uuid, Mark)],
        rows_max: usize,
    ) -> sqlx::Result<Vec<(usize, Self)>> {
        let rows = sqlx::query!(
            r#"SELECT asked.n AS "n!", missed.*
               FROM   UNNEST($1::bigint[], $2::uuid[], $3::timestamptz[], $4::uuid[]) AS asked (n, user_id, time, id),
                      LATERAL (SELECT   id, type AS notification_type, title, body, data, read_at, created_at
                               FROM     notifications
                               WHERE    user_id = asked.user_id AND (created_at, id) > (asked.time, asked.id)
                               ORDER BY created_at, id
                               LIMIT    $5) AS missed"#,
            &requests.iter().map(|(n, ..)| *n as i64).collect::<Vec<_>>(),
            &requests.iter().map(|(_, user_id, _)| *user_id).collect::<Vec<_>>(),
            &requests.iter().map(|(_, _, (time, _))| *time).collect::<Vec<_>>(),
            &requests.iter().map(|(_, _, (_, id))| *id).collect::<Vec<_>>(),
            rows_max as i64
        )
        .fetch_all(db)
        .await?;
        let notifications = rows.into_iter().map(|row| {
            let notification = Notification {
                id: row.id,
                notification_type: row.notification_type,
                title: row.title,
                body: row.body,
                data: row.data,
                read_at: row.read_at,
                created_at: row.created_at,
            };
            (row.n as usize, notification)
        });
        Ok(notifications.collect())
    }

    /// Reads a page of a user's notifications, newest first, after a mark.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn read_page(
        db: &PgPool,
        user_id: Uuid,
        unread_only: bool,
        after: Option<Mark>,
        rows: i64,
    ) -> sqlx::Result<Vec<Self>> {
        let (time, id) = after.unzip();
        sqlx::query_as!(
            Notification,
            r#"SELECT   id, type AS notification_type, title, body, data, read_at, created_at
               FROM     notifications
               WHERE    user_id = $1
                 AND    (NOT $2 OR read_at IS NULL)
                 AND    ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
               ORDER BY created_at DESC, id DESC
               LIMIT    $5"#,
            user_id,
            unread_only,
            time,
            id,
            rows
        )
        .fetch_all(db)
        .await
    }

    /// Returns its place among its user's notifications.
    pub fn mark(&self) -> Mark {
        (self.created_at, self.id)
    }
}
