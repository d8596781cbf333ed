//! What is due: holds that have ended, and holds that end soon. Judged by the database's time.

use std::collections::HashMap;

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

/// Commands of one kind that one tick publishes at most.
const TICK_MAX: i64 = 512;
/// How long a published command is not published again. Then it was lost to a database that came back older than it,
/// or is still waiting in its queue and will absorb the repetition.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// A command to publish.
#[derive(Debug)]
pub(super) struct Due {
    pub event: NewEvent,
}

/// What was published recently, so that a tick does not publish it again.
#[derive(Debug, Default)]
pub(super) struct Recent {
    published: HashMap<Uuid, Instant>,
    new: Vec<Due>,
}

impl Recent {
    pub(super) fn keep_new(&mut self, due: Due) {
        if !self.published.contains_key(&due.event.id) {
            self.new.push(due);
        }
    }

    pub(super) fn take_new(&mut self) -> Vec<Due> {
        std::mem::take(&mut self.new)
    }

    pub(super) fn remember(&mut self, published: Vec<Due>) {
        let now = Instant::now();
        self.published.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        self.published
            .extend(published.into_iter().map(|due| (due.event.id, now)));
    }
}

/// What is due now, oldest first.
pub(super) async fn select(pool: &PgPool, settings: &Clock) -> sqlx::Result<Vec<Due>> {
    let mut due = expired(pool, settings).await?;
    if settings.reminder_before_minutes > 0 {
        due.extend(reminders(pool, settings).await?);
    }
    Ok(due)
}

async fn expired(pool: &PgPool, settings: &Clock) -> sqlx::Result<Vec<Due>> {
    let grace_seconds = Duration::from_millis(settings.hold_grace_ms).as_secs_f64();
    let holds = sqlx::query!(
        r#"SELECT id, hold_expires_at AS "hold_expires_at!"
             FROM student_registrations
            WHERE status = 'seat_held'
              AND hold_expires_at < now() - make_interval(secs => $1)
            ORDER BY hold_expires_at
            LIMIT $2"#,
        grace_seconds,
        TICK_MAX,
    )
    .fetch_all(pool)
    .await?;
    let expire = |id, hold_expires_at| ExpireHold {
        registration_id: id,
        hold_expires_at,
    };
    Ok(holds
        .into_iter()
        .map(|hold| due(hold.id, hold.hold_expires_at, &expire(hold.id, hold.hold_expires_at)))
        .collect())
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

/// Only holds that lasted longer than the reminder comes before their end: the others were just told.
async fn reminders(pool: &PgPool, settings: &Clock) -> sqlx::Result<Vec<Due>> {
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
            WHERE r.status = 'seat_held'
              AND NOT r.provisional
              AND r.hold_expires_at BETWEEN now() AND now() + make_interval(mins => $1)
              AND r.updated_at < r.hold_expires_at - make_interval(mins => $1)
              AND NOT EXISTS (SELECT FROM email_logs l
                               WHERE l.dedupe_key = 'hold_expires_soon:' || r.id || ':'
                                                    || (extract(epoch FROM r.hold_expires_at) * 1000000)::bigint)
            ORDER BY r.hold_expires_at
            LIMIT $2"#,
        before_minutes,
        TICK_MAX,
    )
    .fetch_all(pool)
    .await?;
    Ok(holds
        .into_iter()
        .map(|hold| due(hold.id, hold.hold_expires_at, &reminder(hold)))
        .collect())
}

fn reminder(hold: EndingHold) -> SendEmail {
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
        }),
        token_id: None,
        attachment_file_id: None,
        dedupe_key: format!(
            "hold_expires_soon:{}:{}",
            hold.id,
            hold.hold_expires_at.timestamp_micros()
        ),
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
    Due {
        event: NewEvent::new(ids::due_id(C::KIND, &subject.to_string(), at), command, &origin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expire(at: DateTime<Utc>) -> Due {
        due(
            Uuid::nil(),
            at,
            &ExpireHold {
                registration_id: Uuid::nil(),
                hold_expires_at: at,
            },
        )
    }

    #[test]
    fn what_was_published_is_remembered_and_a_renewed_hold_is_new() {
        let at = DateTime::UNIX_EPOCH;
        let mut recent = Recent::default();
        recent.keep_new(expire(at));
        let new = recent.take_new();
        assert_eq!(new.len(), 1);
        recent.remember(new);
        recent.keep_new(expire(at));
        assert!(recent.take_new().is_empty(), "published before");
        recent.keep_new(expire(at + chrono::Duration::microseconds(1)));
        assert_eq!(recent.take_new().len(), 1, "another end of hold is another command");
    }
}
