//! The due commands: for holds that have ended, and for holds that end soon. The database's time decides.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use contracts::{
    Command, NewEvent, Principal, TraceParent,
    envelope::Origin,
    ids,
    messages::{EmailTemplate, ExpireHold, SendEmail},
};
use rust_decimal::Decimal;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::config::Clock;

/// The most commands of one kind that one tick publishes.
const TICK_MAX: usize = 512;
/// The most commands of one kind that are published and not settled; beyond it, no more are published until some are.
const UNSETTLED_MAX: usize = 16_384;
/// The time after which a published command that is not settled is published again. By then it was lost with a database or
/// broker that was restored from before it, or it still waits in its queue, and the repetition is deduplicated.
const REPUBLISH_AFTER: Duration = Duration::from_secs(15 * 60);

/// A registration, and the end of its hold.
type Key = (Uuid, DateTime<Utc>);

/// A command to publish.
#[derive(Debug)]
pub(super) struct Due {
    pub event: NewEvent,
    key: Key,
}

/// The commands of one kind that are published and not settled yet, so that no tick publishes them again.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    published: HashMap<Key, Instant>,
}

impl Unsettled {
    pub(super) fn remember(&mut self, published: &[Due]) {
        let now = Instant::now();
        self.published.extend(published.iter().map(|due| (due.key, now)));
    }

    fn retain(&mut self, is_unsettled: impl Fn(&Key) -> bool) {
        self.published.retain(|key, at| at.elapsed() < REPUBLISH_AFTER && is_unsettled(key));
    }

    fn columns(&self) -> (Vec<Uuid>, Vec<DateTime<Utc>>) {
        self.published.keys().copied().unzip()
    }

    /// Returns how many more may be published now.
    fn room(&self) -> i64 {
        let room = TICK_MAX.min(UNSETTLED_MAX.saturating_sub(self.published.len()));
        i64::try_from(room).expect("it is at most TICK_MAX")
    }
}

/// Returns the commands for holds that ended longer ago than the grace period, oldest first.
pub(super) async fn expired(pool: &PgPool, settings: &Clock, unsettled: &mut Unsettled) -> sqlx::Result<Vec<Due>> {
    forget_ended(pool, unsettled).await?;
    let (ids, ends) = unsettled.columns();
    let grace_seconds = Duration::from_millis(settings.hold_grace_ms).as_secs_f64();
    let holds = sqlx::query!(
        r#"SELECT id, student_id, hold_expires_at AS "hold_expires_at!"
             FROM student_registrations
            WHERE status = 'seat_held' AND phase = 'held'
              AND hold_expires_at < now() - make_interval(secs => $1)
              AND (id, hold_expires_at) NOT IN (SELECT * FROM UNNEST($2::uuid[], $3::timestamptz[]))
            ORDER BY hold_expires_at
            LIMIT $4"#,
        grace_seconds,
        &ids,
        &ends,
        unsettled.room(),
    )
    .fetch_all(pool)
    .await?;
    let expire = |id, student_id, hold_expires_at| ExpireHold {
        registration_id: id,
        hold_expires_at,
        student_id: Some(student_id),
    };
    Ok(holds
        .into_iter()
        .map(|hold| due(hold.id, hold.hold_expires_at, &expire(hold.id, hold.student_id, hold.hold_expires_at)))
        .collect())
}

/// Forgets the commands whose registration has another status or another end of hold: they are settled.
async fn forget_ended(pool: &PgPool, unsettled: &mut Unsettled) -> sqlx::Result<()> {
    let (ids, ends) = unsettled.columns();
    if ids.is_empty() {
        return Ok(());
    }
    let held = sqlx::query!(
        r#"SELECT r.id, r.hold_expires_at AS "hold_expires_at!"
             FROM student_registrations r
             JOIN UNNEST($1::uuid[], $2::timestamptz[]) AS published (id, hold_expires_at)
                  ON published.id = r.id AND published.hold_expires_at = r.hold_expires_at
            WHERE r.status = 'seat_held'"#,
        &ids,
        &ends,
    )
    .fetch_all(pool)
    .await?;
    let held: HashSet<Key> = held.into_iter().map(|hold| (hold.id, hold.hold_expires_at)).collect();
    unsettled.retain(|key| held.contains(key));
    Ok(())
}

struct EndingHold {
    id: Uuid,
    student_id: Uuid,
    hold_expires_at: DateTime<Utc>,
    request_no: String,
    balance: Decimal,
    currency: String,
    course: String,
    batch: String,
    email: String,
    full_name: Option<String>,
    locale: Option<String>,
}

/// Returns the reminders of holds that end soon, each once. A hold that is shorter than the reminder period has none: its
/// student was notified of the end when it began.
pub(super) async fn reminders(pool: &PgPool, settings: &Clock, unsettled: &mut Unsettled) -> sqlx::Result<Vec<Due>> {
    forget_mailed(pool, unsettled).await?;
    let (ids, ends) = unsettled.columns();
    let before_minutes = i32::try_from(settings.reminder_before_minutes).unwrap_or(i32::MAX);
    let holds = sqlx::query_as!(
        EndingHold,
        r#"SELECT r.id, r.student_id, r.hold_expires_at AS "hold_expires_at!", r.request_no, r.currency,
                  r.amount_due - r.amount_paid AS "balance!", c.title AS course, b.name AS batch,
                  u.email::text AS "email!", up.full_name AS "full_name?", up.locale AS "locale?"
             FROM student_registrations r
             JOIN batches b             ON b.id = r.batch_id
             JOIN courses c             ON c.id = b.course_id
             JOIN users u               ON u.id = r.student_id
             LEFT JOIN user_profiles up ON up.user_id = u.id
            WHERE r.status = 'seat_held' AND r.phase = 'held'
              AND NOT r.provisional
              AND r.hold_expires_at BETWEEN now() AND now() + make_interval(mins => $1)
              AND r.updated_at < r.hold_expires_at - make_interval(mins => $1)
              AND NOT EXISTS (SELECT FROM email_logs l
                               WHERE l.dedupe_key = 'hold_expires_soon:' || r.id || ':'
                                                    || (extract(epoch FROM r.hold_expires_at) * 1000000)::bigint)
              AND (r.id, r.hold_expires_at) NOT IN (SELECT * FROM UNNEST($2::uuid[], $3::timestamptz[]))
            ORDER BY r.hold_expires_at
            LIMIT $4"#,
        before_minutes,
        &ids,
        &ends,
        unsettled.room(),
    )
    .fetch_all(pool)
    .await?;
    Ok(holds.into_iter().map(|hold| due(hold.id, hold.hold_expires_at, &reminder(hold))).collect())
}

/// Forgets the reminders that are in `email_logs`: they are settled.
async fn forget_mailed(pool: &PgPool, unsettled: &mut Unsettled) -> sqlx::Result<()> {
    let dedupe_keys: Vec<String> = unsettled.published.keys().map(reminder_key).collect();
    if dedupe_keys.is_empty() {
        return Ok(());
    }
    let mailed = sqlx::query_scalar!("SELECT dedupe_key FROM email_logs WHERE dedupe_key = ANY ($1)", &dedupe_keys);
    let mailed: HashSet<String> = mailed.fetch_all(pool).await?.into_iter().collect();
    unsettled.retain(|key| !mailed.contains(&reminder_key(key)));
    Ok(())
}

fn reminder_key((registration_id, end): &Key) -> String {
    format!("hold_expires_soon:{registration_id}:{}", end.timestamp_micros())
}

fn reminder(hold: EndingHold) -> SendEmail {
    let dedupe_key = reminder_key(&(hold.id, hold.hold_expires_at));
    SendEmail {
        to_email: hold.email,
        to_name: hold.full_name.clone(),
        user_id: Some(hold.student_id),
        template: EmailTemplate::HoldExpiresSoon,
        locale: hold.locale.unwrap_or_else(|| "en".to_owned()),
        context: json!({
            "name": hold.full_name, "course": hold.course, "batch": hold.batch, "request_no": hold.request_no,
            "registration_id": hold.id, "amount_due": hold.balance, "currency": hold.currency,
            "deadline": hold.hold_expires_at,
        })
        .into(),
        token_id: None,
        attachment_file_id: None,
        dedupe_key,
    }
}

fn due<C: Command>(subject: Uuid, at: DateTime<Utc>, command: &C) -> Due {
    let origin = Origin {
        source: "/clock",
        principal: Principal::System,
        accepted_at: Utc::now(),
        trace: TraceParent::new(),
        parent: None,
    };
    Due { key: (subject, at), event: NewEvent::new(ids::due_id(C::KIND, &subject.to_string(), at), command, &origin) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expire(at: DateTime<Utc>) -> Due {
        let hold = ExpireHold { registration_id: Uuid::nil(), hold_expires_at: at, student_id: None };
        due(Uuid::nil(), at, &hold)
    }

    #[test]
    fn the_same_end_is_the_same_command_and_a_renewed_hold_is_another() {
        let (end, renewed) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::Duration::microseconds(1));
        assert_eq!(expire(end).event.id, expire(end).event.id);
        assert_ne!(expire(end).event.id, expire(renewed).event.id);
    }

    #[test]
    fn what_is_unsettled_is_bounded_and_makes_room_when_it_is_settled() {
        let start = DateTime::UNIX_EPOCH;
        let many =
            (0..UNSETTLED_MAX).map(|n| expire(start + chrono::Duration::seconds(i64::try_from(n).expect("few"))));
        let mut unsettled = Unsettled::default();
        assert_eq!(unsettled.room(), 512);
        unsettled.remember(&many.collect::<Vec<_>>());
        assert_eq!(unsettled.room(), 0);
        unsettled.retain(|(_, end)| *end > start);
        assert_eq!(unsettled.room(), 1);
    }
}
