//! Reads and edits of the signed-in user.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::views::{Me, ProfileChange};
use crate::commands::Edit;

/// Reads a user's account and profile.
pub async fn show(db: &PgPool, user_id: Uuid) -> sqlx::Result<Option<Me>> {
    sqlx::query_as!(
        Me,
        r#"SELECT    users.id, users.email::text AS "email!", users.phone, users.role, users.email_verified_at,
                     users.last_login_at, users.password_hash IS NOT NULL AS "has_password!", p.full_name AS "full_name?",
                     p.given_name, p.family_name, p.date_of_birth, p.guardian_name, p.guardian_phone, p.address, p.country,
                     p.tax_id, p.locale AS "locale?", p.timezone AS "timezone?", p.notify_prefs AS "notify_prefs?",
                     coalesce(p.version, 0) AS "version!"
           FROM      users
           LEFT JOIN user_profiles AS p ON p.user_id = users.id
           WHERE     users.id = $1 AND users.deleted_at IS NULL"#,
        user_id
    )
    .fetch_optional(db)
    .await
}

/// A change of a user's own profile.
pub struct ProfileEdit {
    /// The user.
    pub user_id: Uuid,
    /// The change, checked.
    pub change: ProfileChange,
}

impl Edit for ProfileEdit {
    type View = Me;

    const ACTION: &'static str = "profile.edit";
    const ENTITY_TYPE: &'static str = "user";
    /// Clients from before entity tags had versions go on.
    const IF_MATCH_REQUIRED: bool = false;

    fn entity_id(&self) -> Uuid {
        self.user_id
    }

    async fn lock(&self, tx: &mut PgConnection) -> sqlx::Result<Option<Me>> {
        sqlx::query_as!(
            Me,
            r#"SELECT users.id, users.email::text AS "email!", users.phone, users.role, users.email_verified_at,
                      users.last_login_at, users.password_hash IS NOT NULL AS "has_password!", p.full_name AS "full_name?",
                      p.given_name, p.family_name, p.date_of_birth, p.guardian_name, p.guardian_phone, p.address, p.country,
                      p.tax_id, p.locale AS "locale?", p.timezone AS "timezone?", p.notify_prefs AS "notify_prefs?",
                      p.version AS "version!"
               FROM   users
               JOIN   user_profiles AS p ON p.user_id = users.id
               WHERE  users.id = $1 AND users.deleted_at IS NULL
               FOR UPDATE OF p"#,
            self.user_id
        )
        .fetch_optional(tx)
        .await
    }

    async fn write(&self, tx: &mut PgConnection) -> sqlx::Result<()> {
        let change = serde_json::to_value(&self.change).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query!(
            "UPDATE user_profiles
             SET    full_name      = coalesce(change->>'full_name', full_name),
                    given_name     = CASE WHEN change ? 'given_name'     THEN change->>'given_name'             ELSE given_name     END,
                    family_name    = CASE WHEN change ? 'family_name'    THEN change->>'family_name'            ELSE family_name    END,
                    date_of_birth  = CASE WHEN change ? 'date_of_birth'  THEN (change->>'date_of_birth')::date  ELSE date_of_birth  END,
                    guardian_name  = CASE WHEN change ? 'guardian_name'  THEN change->>'guardian_name'          ELSE guardian_name  END,
                    guardian_phone = CASE WHEN change ? 'guardian_phone' THEN change->>'guardian_phone'         ELSE guardian_phone END,
                    address        = CASE WHEN change ? 'address'        THEN nullif(change->'address', 'null') ELSE address        END,
                    country        = CASE WHEN change ? 'country'        THEN change->>'country'                ELSE country        END,
                    tax_id         = CASE WHEN change ? 'tax_id'         THEN change->>'tax_id'                 ELSE tax_id         END,
                    locale         = coalesce(change->>'locale', locale),
                    timezone       = coalesce(change->>'timezone', timezone),
                    notify_prefs   = coalesce(change->'notify_prefs', notify_prefs),
                    version        = version + 1
             FROM   (SELECT $2::jsonb) AS given(change)
             WHERE  user_id = $1",
            self.user_id,
            change
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}
