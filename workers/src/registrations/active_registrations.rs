//! The active registrations of the students who ask for a seat: a student has at most one in each course batch.

use std::collections::HashMap;

use contracts::messages::{Registrant, SubmitRegistration};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Notice, RegistrationStatus, registrants::Registrants};
use crate::runtime::{Delivery, Failure};

/// Active registrations by student and course batch: those in the database, and those admitted since in this transaction.
#[derive(Debug, Default)]
pub struct ActiveRegistrations {
    notices: HashMap<(Uuid, Uuid), Notice>,
}

impl ActiveRegistrations {
    /// Looks up the active registrations of the deliveries' registrants in the deliveries' course batches, which must be
    /// locked: then no other registration can appear before the transaction ends.
    ///
    /// # Errors
    /// The database's.
    pub async fn find(
        tx: &mut PgConnection,
        deliveries: &[Delivery<SubmitRegistration>],
        registrants: &Registrants,
    ) -> Result<Self, Failure> {
        let account = |delivery: &Delivery<SubmitRegistration>| match &delivery.command.registrant {
            Registrant::Student { student_id } => registrants.student(*student_id).map(|account| account.id),
            Registrant::Visitor { email, .. } => registrants.of_email(email).map(|account| account.id),
        };
        let (students, course_batches): (Vec<Uuid>, Vec<Uuid>) =
            deliveries.iter().filter_map(|delivery| Some((account(delivery)?, delivery.command.batch_id))).unzip();
        if students.is_empty() {
            return Ok(Self::default());
        }
        let rows = sqlx::query!(
            r#"
            SELECT r.id, r.student_id, r.batch_id, r.request_no, r.status AS "status: RegistrationStatus",
                   r.amount_due, r.currency, r.deposit, r.hold_expires_at,
                   c.title AS course, b.name AS batch, u.email::text AS "email!",
                   COALESCE(p.full_name, u.email::text) AS "name!", COALESCE(p.locale, 'en') AS "locale!"
            FROM (SELECT DISTINCT * FROM UNNEST($1::uuid[], $2::uuid[])) AS asked (student_id, batch_id)
            CROSS JOIN LATERAL (
                SELECT *
                FROM student_registrations r
                WHERE r.student_id = asked.student_id AND r.batch_id = asked.batch_id
                  AND r.phase IN ('submitted', 'under_review', 'held', 'waitlisted', 'confirmed')
                OFFSET 0  -- by its own index for each, whatever the statistics say
            ) r
            JOIN batches b            ON b.id = r.batch_id
            JOIN courses c            ON c.id = b.course_id
            JOIN users u              ON u.id = r.student_id
            LEFT JOIN user_profiles p ON p.user_id = r.student_id
            "#,
            &students,
            &course_batches,
        )
        .fetch_all(tx)
        .await?;
        let notices = rows.into_iter().map(|row| {
            let notice = Notice {
                user_id: row.student_id,
                email: row.email,
                name: row.name,
                locale: row.locale,
                registration_id: row.id,
                request_no: row.request_no,
                status: row.status,
                course: row.course,
                course_batch: row.batch,
                amount_due: row.amount_due,
                currency: row.currency,
                deposit: row.deposit,
                deadline: row.hold_expires_at.filter(|_| row.status == RegistrationStatus::SeatHeld),
                position: None,
                token_id: None,
            };
            ((row.student_id, row.batch_id), notice)
        });
        Ok(Self { notices: notices.collect() })
    }

    /// Returns the active registration of a student in a course batch.
    pub fn get(&self, student_id: Uuid, batch_id: Uuid) -> Option<&Notice> {
        self.notices.get(&(student_id, batch_id))
    }

    /// Adds a registration that was admitted just now.
    pub fn insert(&mut self, student_id: Uuid, batch_id: Uuid, notice: Notice) {
        self.notices.insert((student_id, batch_id), notice);
    }
}
