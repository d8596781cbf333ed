//! The sample data of a load test: open course batches, and students whose seats are held, so that payments can begin at
//! once, or who have yet to register. The course batches' counters are kept as the platform keeps them, so that the checker
//! can count them.

use anyhow::ensure;
use contracts::ids;
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{BASE_FEE, RUST_COURSE, TAX_RATE};

/// Rows per statement, so that none runs into the statement timeout.
const CHUNK: usize = 2_000;

/// The amount of sample data.
pub(super) struct LoadPlan {
    pub students: i32,
    pub course_batches: i32,
    pub seats: Option<i32>,
    pub waitlist: i32,
    /// True where each student has a seat held.
    pub seated: bool,
}

#[derive(Clone, Serialize)]
struct Student {
    student_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_id: Option<Uuid>,
    /// The course batch of the seat; without a seat, course batches in turn.
    batch_id: Uuid,
    email: String,
    amount_due: Decimal,
    currency: String,
}

/// Creates the data and prints a JSON object for each student.
pub(super) async fn run(database: &PgPool, plan: &LoadPlan) -> anyhow::Result<()> {
    let students_each = (plan.students - 1) / plan.course_batches + 1;
    let seats = plan.seats.unwrap_or(students_each * 2);
    ensure!(
        !plan.seated || seats >= students_each,
        "--seats {seats} is too few for the {students_each} students of each batch"
    );
    let currency =
        sqlx::query_scalar!("SELECT currency FROM courses WHERE id = $1", RUST_COURSE).fetch_one(database).await?;
    let course_batches = course_batches(database, plan.course_batches, seats, plan.waitlist).await?;
    let amount_due = BASE_FEE + BASE_FEE * TAX_RATE / Decimal::ONE_HUNDRED;
    let students: Vec<Student> = course_batches
        .iter()
        .cycle()
        .zip(0..plan.students)
        .map(|(batch_id, _)| {
            let student_id = ids::new_id();
            Student {
                student_id,
                registration_id: plan.seated.then(ids::new_id),
                batch_id: *batch_id,
                email: format!("student-{}@load.example.org", student_id.simple()),
                amount_due: amount_due.round_dp(2),
                currency: currency.clone(),
            }
        })
        .collect();
    for chunk in students.chunks(CHUNK) {
        write(database, chunk, plan.seated).await?;
    }
    let lines = students.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    println!("{}", lines.join("\n"));
    Ok(())
}

async fn course_batches(database: &PgPool, count: i32, seats: i32, waitlist: i32) -> sqlx::Result<Vec<Uuid>> {
    let course_batches: Vec<Uuid> = (0..count).map(|_| ids::new_id()).collect();
    sqlx::query!(
        r#"
        INSERT INTO batches (id, course_id, code, name, mode, capacity, waitlist_capacity, start_date, end_date, opens_at,
                             closes_at, confirm_minutes, hold_minutes, fee, status)
        SELECT id, $2, 'LOAD-' || id, 'Load test', 'online', $3, $5, current_date + 30, current_date + 120,
               now() - interval '1 minute', now() + interval '7 days', 60, 1440, $4, 'open'
          FROM UNNEST($1::uuid[]) AS wanted (id)
        "#,
        &course_batches,
        RUST_COURSE,
        seats,
        BASE_FEE,
        waitlist,
    )
    .execute(database)
    .await?;
    Ok(course_batches)
}

async fn write(database: &PgPool, students: &[Student], seated: bool) -> sqlx::Result<()> {
    let mut tx = database.begin().await?;
    create_accounts(&mut tx, students).await?;
    if seated {
        hold_seats(&mut tx, students).await?;
    }
    tx.commit().await
}

async fn create_accounts(tx: &mut PgConnection, students: &[Student]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        WITH created AS (
            INSERT INTO users (id, email, role, status, email_verified_at)
            SELECT id, email::citext, 'student', 'active', now()
              FROM UNNEST($1::uuid[], $2::text[]) AS wanted (id, email)
            RETURNING id
        )
        INSERT INTO user_profiles (id, user_id, full_name)
        SELECT id, id, 'Load Test' FROM created
        "#,
        &students.iter().map(|student| student.student_id).collect::<Vec<_>>(),
        &students.iter().map(|student| student.email.clone()).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn hold_seats(tx: &mut PgConnection, students: &[Student]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        WITH held AS (
            INSERT INTO student_registrations (id, student_id, batch_id, status, fee, tax_rate, tax, amount_due, currency,
                                               hold_expires_at, operation_id)
            SELECT id, student_id, batch_id, 'seat_held', $5, $6, $7::numeric - $5::numeric, $7, $8, now() + interval '1 day', operation_id
              FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[])
                AS wanted (id, student_id, batch_id, operation_id)
            RETURNING batch_id
        )
        UPDATE batches
           SET seats_taken = seats_taken + taken.seats, updated_at = now()
          FROM (SELECT batch_id, count(*)::int AS seats FROM held GROUP BY batch_id) AS taken
         WHERE batches.id = taken.batch_id
        "#,
        &students.iter().filter_map(|student| student.registration_id).collect::<Vec<_>>(),
        &students.iter().map(|student| student.student_id).collect::<Vec<_>>(),
        &students.iter().map(|student| student.batch_id).collect::<Vec<_>>(),
        &students.iter().map(|_| ids::new_id()).collect::<Vec<_>>(),
        BASE_FEE,
        TAX_RATE,
        students[0].amount_due,
        students[0].currency,
    )
    .execute(tx)
    .await?;
    Ok(())
}
