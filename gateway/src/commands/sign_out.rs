//! Ending a sign-in, by whichever endpoint. Its access tokens are refused on every gateway within five seconds, its refresh
//! tokens at once.

use sqlx::PgPool;
use uuid::Uuid;

use super::audit::{self, AuditRecord};
use crate::{
    auth::{Auth, Caller, sessions},
    extract::ClientAddress,
    http::ApiResult,
};

/// Ends a sign-in of the caller; `false` where there is none alive.
///
/// # Errors
/// The database's.
pub async fn sign_out(db: &PgPool, auth: &Auth, caller: Caller, sid: Uuid, address: ClientAddress) -> ApiResult<bool> {
    let mut tx = db.begin().await?;
    let is_revoked = sessions::revoke_family(&mut tx, caller.user_id, sid).await?;
    if is_revoked {
        let entry = AuditRecord {
            actor: (caller.user_id, caller.role),
            action: "auth.logout",
            entity_type: "session",
            entity_id: sid,
            change: None,
            address,
        };
        audit::record(&mut tx, entry).await?;
    }
    tx.commit().await?;
    // Also a token that came without a session (load tests mint such) ends with its logout.
    if is_revoked || sid == caller.sid {
        auth.announce_revoked(vec![sid]);
    }
    Ok(is_revoked)
}
