//! The instance's database, as its owner: created empty for a scenario, and filled with many rows at a time.

use std::str::FromStr as _;

use anyhow::{Context as _, ensure};
use contracts::ids;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::process::Command;
use uuid::Uuid;

use crate::config::Installation;

/// Rows of one statement.
const CHUNK: usize = 20_000;

/// A student with an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Student {
    /// `users.id`.
    pub id: Uuid,
}

/// Drops the database and creates an empty one with the newest schema and the sample institute.
///
/// # Errors
/// Where the owner lacks a privilege, or `workers migrate` or `workers seed` fails.
pub(crate) async fn recreate(installation: &Installation) -> anyhow::Result<()> {
    let options = PgConnectOptions::from_str(&installation.database_url)?;
    let name = options.get_database().context("BENCH_DATABASE_URL names no database")?.to_owned();
    let mut connection = options.database("postgres").connect().await?;
    for statement in [format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"), format!("CREATE DATABASE \"{name}\"")]
    {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.context("the database, anew")?;
    }
    connection.close().await?;
    for arguments in [&["migrate"][..], &["seed", "--bcrypt-cost", "4"]] {
        let mut command = Command::new(installation.programs.join("workers"));
        command.args(arguments).envs(installation.owner_settings.iter().map(|(key, value)| (key, value)));
        let output = command.output().await.context("workers cannot be started")?;
        ensure!(output.status.success(), "workers {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Connects as the owner.
///
/// # Errors
/// Where Postgres does not answer.
pub(crate) async fn connect(installation: &Installation) -> anyhow::Result<PgPool> {
    Ok(PgPoolOptions::new().max_connections(2).connect(&installation.database_url).await?)
}

/// Inserts open course batches of a published course, with `seats` and `waitlist` places each; returns their ids.
///
/// # Errors
/// Where the sample institute is missing.
pub(crate) async fn insert_course_batches(
    database: &PgPool,
    count: usize,
    seats: i32,
    waitlist: i32,
) -> anyhow::Result<Vec<Uuid>> {
    let ids: Vec<Uuid> = (0..count).map(|_| ids::new_id()).collect();
    let made = sqlx::query(
        "INSERT INTO batches (id, course_id, code, name, mode, capacity, waitlist_capacity, start_date, end_date, opens_at,
                              closes_at, confirm_minutes, hold_minutes, fee, status)
         SELECT batch.id, course.id, 'BENCH-' || batch.id, 'Benchmark', 'online', $2, $3, current_date + 30,
                current_date + 120, now() - interval '1 minute', now() + interval '7 days', 1440, 1440, course.base_fee,
                'open'
           FROM unnest($1::uuid[]) AS batch (id), courses AS course
          WHERE course.code = 'RUST-101'",
    )
    .bind(&ids)
    .bind(seats)
    .bind(waitlist)
    .execute(database)
    .await?;
    ensure!(made.rows_affected() == count as u64, "the course of the sample institute is missing");
    Ok(ids)
}

/// Inserts active students with profiles; returns them in the order of their ids.
///
/// # Errors
/// Where Postgres refuses.
pub(crate) async fn insert_students(database: &PgPool, count: usize) -> anyhow::Result<Vec<Student>> {
    let students: Vec<Student> = (0..count).map(|_| Student { id: ids::new_id() }).collect();
    let mut connection = database.acquire().await?;
    disable_triggers(&mut connection).await?;
    for chunk in students.chunks(CHUNK) {
        sqlx::query(
            "WITH created AS (
                 INSERT INTO users (id, email, role, status, email_verified_at)
                 SELECT id, ('student-' || replace(id::text, '-', '') || '@load.example.org')::citext, 'student', 'active', now()
                   FROM unnest($1::uuid[]) AS wanted (id)
                 RETURNING id
             )
             INSERT INTO user_profiles (id, user_id, full_name) SELECT id, id, 'Load Test' FROM created",
        )
        .bind(chunk.iter().map(|student| student.id).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    // The session keeps its setting, so it must not return to the connection pool.
    connection.detach().close().await?;
    Ok(students)
}

/// Inserts a held seat for each student, spread over these course batches; returns the registrations' ids in the
/// students' order.
///
/// # Errors
/// Where the course batches have too few seats.
pub(crate) async fn hold_seats(
    database: &PgPool,
    students: &[Student],
    course_batches: &[Uuid],
) -> anyhow::Result<Vec<Uuid>> {
    let registrations: Vec<Uuid> = students.iter().map(|_| ids::new_id()).collect();
    let mut connection = database.acquire().await?;
    disable_triggers(&mut connection).await?;
    for (chunk, ids) in students.chunks(CHUNK).zip(registrations.chunks(CHUNK)) {
        let batch_ids: Vec<Uuid> = course_batches.iter().copied().cycle().take(chunk.len()).collect();
        sqlx::query(
            "WITH held AS (
                 INSERT INTO student_registrations (id, student_id, batch_id, status, fee, tax_rate, tax, amount_due,
                                                    currency, hold_expires_at, operation_id)
                 SELECT wanted.id, student_id, batch.id, 'seat_held', fee, tax_rate, round(fee * tax_rate / 100, 2),
                        fee + round(fee * tax_rate / 100, 2), currency, now() + interval '1 day', gen_random_uuid()
                   FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS wanted (id, student_id, batch_id)
                   JOIN batches AS batch ON batch.id = wanted.batch_id
                   JOIN courses AS course ON course.id = batch.course_id
                  ORDER BY wanted.id
                 RETURNING batch_id
             )
             UPDATE batches
                SET seats_taken = seats_taken + taken.seats
               FROM (SELECT batch_id, count(*)::int AS seats FROM held GROUP BY batch_id) AS taken
              WHERE batches.id = taken.batch_id",
        )
        .bind(ids)
        .bind(chunk.iter().map(|student| student.id).collect::<Vec<_>>())
        .bind(batch_ids)
        .execute(&mut *connection)
        .await?;
    }
    connection.detach().close().await?;
    Ok(registrations)
}

/// Inserts a submitted payment of the whole amount for each of these registrations; returns the payments' ids in the
/// same order.
///
/// # Errors
/// Where Postgres refuses.
pub(crate) async fn insert_submitted_payments(database: &PgPool, registrations: &[Uuid]) -> anyhow::Result<Vec<Uuid>> {
    let payments: Vec<Uuid> = registrations.iter().map(|_| ids::new_id()).collect();
    let mut connection = database.acquire().await?;
    disable_triggers(&mut connection).await?;
    for (ids, registrations) in payments.chunks(CHUNK).zip(registrations.chunks(CHUNK)) {
        sqlx::query(
            "WITH paid AS (
                 INSERT INTO payments (id, registration_id, student_id, method, transaction_id, transaction_ref, amount,
                                       currency, status, operation_id)
                 SELECT wanted.id, registration.id, student_id, 'bank_transfer', 'UTR-' || wanted.id,
                        'UTR' || upper(replace(wanted.id::text, '-', '')), amount_due, currency, 'submitted',
                        gen_random_uuid()
                   FROM unnest($1::uuid[], $2::uuid[]) AS wanted (id, registration_id)
                   JOIN student_registrations AS registration ON registration.id = wanted.registration_id
             )
             UPDATE student_registrations SET status = 'payment_submitted' WHERE id = ANY($2)",
        )
        .bind(ids)
        .bind(registrations)
        .execute(&mut *connection)
        .await?;
    }
    connection.detach().close().await?;
    Ok(payments)
}

/// Vacuums, analyses and checkpoints after seeding, so that no run pays for hint bits, statistics or dirty pages of
/// the rows inserted before it.
///
/// # Errors
/// Where the owner may not checkpoint: `loadtest/bench/run` grants it.
pub(crate) async fn vacuum_and_checkpoint(database: &PgPool) -> anyhow::Result<()> {
    for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        sqlx::raw_sql(statement).execute(database).await.context(statement)?;
    }
    Ok(())
}

/// Turns off triggers and foreign keys for this session. The seeded rows satisfy them, and checking each would triple
/// the time.
async fn disable_triggers(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SET session_replication_role = replica").execute(connection).await.map(|_| ())
}
