//! The demo's own course batch: two seats and a waitlist of five, fresh each time, so that the demo can run again.

use anyhow::Context as _;
use contracts::{ids, validation::Checks};
use serde_json::json;
use sqlx::PgPool;

use super::{BASE_FEE, RUST_COURSE, TEACHER};

/// Creates the course batch and prints it as one JSON object.
pub(super) async fn run(database: &PgPool, code: &str) -> anyhow::Result<()> {
    Checks::new()
        .line("--demo-batch", code, 50)
        .finish()
        .map_err(|errors| anyhow::anyhow!(errors[0].message.clone()))?;
    let id = ids::new_id();
    sqlx::query!(
        r#"
        INSERT INTO batches (id, course_id, code, name, instructor_id, mode, capacity, waitlist_capacity, start_date,
                             end_date, opens_at, closes_at, confirm_minutes, hold_minutes, fee, status)
        VALUES ($1, $2, $3, 'The demo''s two-seat batch', $4, 'classroom', 2, 5, current_date + 30, current_date + 120,
                now() - interval '1 minute', now() + interval '7 days', 60, 1440, $5, 'open')
        "#,
        id,
        RUST_COURSE,
        code,
        TEACHER,
        BASE_FEE,
    )
    .execute(database)
    .await
    .context("the demo's batch could not be made; is its code taken?")?;
    println!(
        "{}",
        json!({ "batch_id": id, "course_id": RUST_COURSE, "code": code, "capacity": 2, "waitlist_capacity": 5 })
    );
    Ok(())
}
