//! `notification.create.v1`: notifies a user, or every active user of a role, in the application. It is self-deduplicating:
//! the unique key of user and dedupe key takes the place of an operations row, so that a repeated delivery notifies once.

use contracts::{
    Outcome, RawJson, ids,
    messages::{CreateNotification, create_notification::NotificationTarget},
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::runtime::{Delivery, Failure, Handler};

/// Settles `notification.create.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateNotificationHandler;

impl Handler for CreateNotificationHandler {
    type Command = CreateNotification;
    type Result = ();
    type Memo = ();

    const SELF_DEDUPLICATING: bool = true;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<Self::Command>],
    ) -> Result<Vec<Outcome<Self::Result>>, Failure> {
        let mut rows = Rows::default();
        deliveries.iter().for_each(|delivery| rows.push(delivery));
        // Only the statement knows how many users a role has, so it makes the ids of their rows. Users and roles are looked
        // up apart, each by its index: joined by one OR they would be a scan of all users for every row. OFFSET 0: row by
        // row, where a join that was planned on an empty table may begin with all users. Only staff is notified by role: a
        // row for each of all students would be a transaction without end.
        sqlx::query!(
            "WITH new AS (
                 SELECT *
                   FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[],
                               $8::text[], $9::uuid[]) WITH ORDINALITY
                     AS new (id, user_id, role, type, title, body, data, dedupe_key, operation_id, position)
             ), told AS (
                 SELECT new.id, u.id AS told_id, type, title, body, data, dedupe_key, new.operation_id, position
                   FROM new
                  CROSS JOIN LATERAL (SELECT id FROM users WHERE id = new.user_id AND deleted_at IS NULL OFFSET 0) AS u
                 UNION ALL
                 SELECT gen_random_uuid(), u.id, type, title, body, data, dedupe_key, new.operation_id, position
                   FROM new JOIN users u ON u.role = new.role AND u.role <> 'student' AND u.status = 'active'
                        AND u.deleted_at IS NULL
                  WHERE new.user_id IS NULL
             )
             INSERT INTO notifications (id, user_id, type, title, body, data, dedupe_key, operation_id)
             SELECT id, told_id, type, title, body, data, dedupe_key, operation_id
               FROM told
              ORDER BY told_id, position
             ON CONFLICT (user_id, dedupe_key) DO NOTHING",
            &rows.ids,
            &rows.user_ids as &[Option<Uuid>],
            &rows.roles as &[Option<&str>],
            &rows.types as &[&str],
            &rows.titles as &[&str],
            &rows.bodies as &[&str],
            &rows.data as &[Json<&RawJson>],
            &rows.dedupe_keys as &[&str],
            &rows.operation_ids,
        )
        .execute(&mut *tx)
        .await?;
        Ok(deliveries.iter().map(|_| Outcome::succeeded(())).collect())
    }

    fn notifies(&self, command: &Self::Command) -> Option<NotificationTarget> {
        Some(command.to.clone())
    }
}

#[derive(Default)]
struct Rows<'a> {
    ids: Vec<Uuid>,
    user_ids: Vec<Option<Uuid>>,
    roles: Vec<Option<&'static str>>,
    types: Vec<&'a str>,
    titles: Vec<&'a str>,
    bodies: Vec<&'a str>,
    data: Vec<Json<&'a RawJson>>,
    dedupe_keys: Vec<&'a str>,
    operation_ids: Vec<Uuid>,
}

impl<'a> Rows<'a> {
    fn push(&mut self, delivery: &'a Delivery<CreateNotification>) {
        let command = &delivery.command;
        let (user_id, role) = match command.to {
            NotificationTarget::User(id) => (Some(id), None),
            NotificationTarget::Role(role) => (None, Some(role.name())),
        };
        self.ids.push(ids::new_id());
        self.user_ids.push(user_id);
        self.roles.push(role);
        self.types.push(&command.notification_type);
        self.titles.push(&command.title);
        self.bodies.push(&command.body);
        self.data.push(Json(&command.data));
        self.dedupe_keys.push(&command.dedupe_key);
        self.operation_ids.push(delivery.id);
    }
}
