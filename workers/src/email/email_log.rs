//! `email_logs` as inbox and lease: the mail of a dedupe key is sent once. A lease is measured by the database's clock; one
//! that ran out means that its holder died, and the mail goes out again under the same Message-ID.

use std::collections::{HashMap, HashSet};

use contracts::{ids, messages::SendEmail};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::runtime::{Delivery, Failure};

/// Templates that a user may switch off. All others are transactional and always sent.
const OPTIONAL: [&str; 2] = ["hold_expires_soon", "payment_received"];

/// The state of a dedupe key after the claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Leased by this claim, to be sent under this Message-ID.
    Claimed(String),
    /// Sent, or never to be sent.
    Settled,
    /// Leased by another worker, or by an earlier delivery of this transaction.
    Leased,
}

/// The result of a mail, to be written to its row.
pub(super) struct Mark {
    pub dedupe_key: String,
    pub status: &'static str,
    pub error: Option<String>,
}

/// Claims each dedupe key for its first delivery; later ones with the same key find it leased.
pub(super) async fn claim(
    tx: &mut PgConnection,
    deliveries: &[Delivery<SendEmail>],
    subjects: &[String],
    domain: &str,
    lease_seconds: f64,
) -> Result<Vec<Entry>, Failure> {
    let mut rows = Rows::default();
    let mut seen = HashSet::new();
    for (delivery, subject) in deliveries.iter().zip(subjects) {
        if seen.insert(&delivery.command.dedupe_key) {
            rows.push(delivery, subject, domain)?;
        }
    }
    let mut claimed = insert_or_take_over(tx, &rows, lease_seconds).await?;
    let others: Vec<String> = rows.dedupe_keys.iter().filter(|key| !claimed.contains_key(*key)).cloned().collect();
    let settled = settled(tx, &others).await?;
    let entry = |delivery: &Delivery<SendEmail>| {
        let key = &delivery.command.dedupe_key;
        match claimed.remove(key) {
            Some(Claimed { status, message_id }) if status == "sending" => Entry::Claimed(message_id),
            Some(_) => Entry::Settled,
            None if settled.contains(key) => Entry::Settled,
            None => Entry::Leased,
        }
    };
    Ok(deliveries.iter().map(entry).collect())
}

struct Claimed {
    status: String,
    message_id: String,
}

async fn insert_or_take_over(
    tx: &mut PgConnection,
    rows: &Rows,
    lease_seconds: f64,
) -> Result<HashMap<String, Claimed>, Failure> {
    let optional: Vec<String> = OPTIONAL.map(str::to_owned).to_vec();
    let claimed = sqlx::query!(
        r#"WITH new AS (
               SELECT new.*, u.id AS known_user_id,
                      EXISTS (SELECT FROM email_suppressions s WHERE s.email = new.to_email::citext)
                      OR (new.template = ANY ($13)
                          AND coalesce(up.notify_prefs #>> ARRAY['email', new.template], up.notify_prefs ->> 'email')
                              IS NOT DISTINCT FROM 'false') AS suppressed
                 FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[],
                             $8::text[], $9::uuid[], $10::text[], $11::text[])
                   AS new (id, user_id, to_email, template, locale, subject, context,
                           dedupe_key, event_id, trace_id, message_id)
                 LEFT JOIN users u          ON u.id = new.user_id
                 LEFT JOIN user_profiles up ON up.user_id = u.id
           )
           INSERT INTO email_logs AS log
                  (id, user_id, to_email, template, locale, subject, context, dedupe_key, event_id, trace_id, message_id,
                   status, attempts, lease_until)
           SELECT id, known_user_id, to_email::citext, template, locale, subject, context, dedupe_key, event_id, trace_id,
                  message_id,
                  CASE WHEN suppressed THEN 'suppressed' ELSE 'sending' END,
                  CASE WHEN suppressed THEN 0 ELSE 1 END,
                  CASE WHEN NOT suppressed THEN clock_timestamp() + make_interval(secs => $12) END
             FROM new
            ORDER BY dedupe_key
           ON CONFLICT (dedupe_key) DO UPDATE
              SET status          = EXCLUDED.status,
                  attempts        = log.attempts + EXCLUDED.attempts,
                  lease_until     = EXCLUDED.lease_until,
                  next_attempt_at = NULL,
                  updated_at      = now()
            WHERE log.status IN ('queued', 'failed')
               OR (log.status = 'sending' AND log.lease_until < clock_timestamp())
           RETURNING dedupe_key, status, message_id"#,
        &rows.ids,
        &rows.user_ids as &[Option<Uuid>],
        &rows.to_emails,
        &rows.templates,
        &rows.locales,
        &rows.subjects,
        &rows.contexts,
        &rows.dedupe_keys,
        &rows.event_ids,
        &rows.trace_ids,
        &rows.message_ids,
        lease_seconds,
        &optional,
    )
    .fetch_all(&mut *tx)
    .await?;
    let claimed = claimed.into_iter();
    Ok(claimed.map(|row| (row.dedupe_key, Claimed { status: row.status, message_id: row.message_id })).collect())
}

async fn settled(tx: &mut PgConnection, dedupe_keys: &[String]) -> Result<HashSet<String>, Failure> {
    if dedupe_keys.is_empty() {
        return Ok(HashSet::new());
    }
    let settled = sqlx::query_scalar!(
        "SELECT dedupe_key FROM email_logs WHERE dedupe_key = ANY ($1) AND status IN ('sent', 'suppressed')",
        dedupe_keys,
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(settled.into_iter().collect())
}

/// Writes the results of mails. A sent mail stays sent, also where its lease ran out meanwhile.
pub(super) async fn mark(tx: &mut PgConnection, marks: &[Mark]) -> Result<(), Failure> {
    let keys: Vec<String> = marks.iter().map(|mark| mark.dedupe_key.clone()).collect();
    let statuses: Vec<String> = marks.iter().map(|mark| mark.status.to_owned()).collect();
    let errors: Vec<Option<String>> = marks.iter().map(|mark| mark.error.clone()).collect();
    sqlx::query!(
        "UPDATE email_logs
            SET status      = new.status,
                last_error  = coalesce(new.error, last_error),
                sent_at     = CASE WHEN new.status = 'sent' THEN clock_timestamp() END,
                lease_until = NULL,
                updated_at  = now()
           FROM UNNEST($1::text[], $2::text[], $3::text[]) AS new (dedupe_key, status, error)
          WHERE email_logs.dedupe_key = new.dedupe_key
            AND email_logs.status <> 'sent'",
        &keys,
        &statuses,
        &errors as &[Option<String>],
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    user_ids: Vec<Option<Uuid>>,
    to_emails: Vec<String>,
    templates: Vec<String>,
    locales: Vec<String>,
    subjects: Vec<String>,
    contexts: Vec<Value>,
    dedupe_keys: Vec<String>,
    event_ids: Vec<Uuid>,
    trace_ids: Vec<String>,
    message_ids: Vec<String>,
}

impl Rows {
    fn push(&mut self, delivery: &Delivery<SendEmail>, subject: &str, domain: &str) -> Result<(), Failure> {
        let command = &delivery.command;
        self.ids.push(ids::new_id());
        self.user_ids.push(command.user_id);
        self.to_emails.push(command.to_email.clone());
        self.templates.push(command.template.name().to_owned());
        self.locales.push(command.locale.clone());
        self.subjects.push(subject.to_owned());
        // The whole command, with all that is needed to send the mail again. It holds no secret.
        self.contexts.push(serde_json::to_value(command).map_err(|error| Failure::Data(Box::new(error)))?);
        self.dedupe_keys.push(command.dedupe_key.clone());
        self.event_ids.push(delivery.id);
        self.trace_ids.push(delivery.trace.trace_id());
        self.message_ids.push(format!("<{}@{domain}>", delivery.id));
        Ok(())
    }
}
