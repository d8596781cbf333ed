//! `workers dead list`: lists dead letters, grouped by failure first, because a thousand letters mostly have one cause.

use std::io::Write;

use chrono::SecondsFormat;
use sqlx::PgPool;

use super::selection::Filter;

/// The dead letters to list.
#[derive(Debug, clap::Args)]
pub struct DeadListArgs {
    /// Their state: `parked`, `replayed` or `discarded`.
    #[arg(long, default_value = "parked", value_parser = ["parked", "replayed", "discarded"])]
    state: String,

    #[command(flatten)]
    filter: Filter,

    /// Letters listed at most, the latest first; the groups count all.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(0..=10_000))]
    limit: i64,
}

/// Prints the groups, then the letters.
pub(super) async fn run(args: &DeadListArgs, database: &PgPool) -> anyhow::Result<()> {
    let all = groups(args, database).await?;
    if all == 0 {
        println!("no dead letters are {}", args.state);
        return Ok(());
    }
    letters(args, database).await
}

async fn groups(args: &DeadListArgs, database: &PgPool) -> anyhow::Result<i64> {
    let groups = sqlx::query!(
        r#"
        SELECT error_class, kind, count(*) AS "letters!", min(first_failed_at) AS "first!", max(last_failed_at) AS "last!"
          FROM dead_letters
         WHERE state = $1
           AND ($2::text IS NULL OR pool = $2)
           AND ($3::text IS NULL OR kind = $3)
           AND ($4::text IS NULL OR error_class = $4)
         GROUP BY error_class, kind
         ORDER BY count(*) DESC, error_class, kind
        "#,
        args.state,
        args.filter.pool,
        args.filter.kind,
        args.filter.class,
    )
    .fetch_all(database)
    .await?;
    let mut out = Vec::new();
    for group in &groups {
        writeln!(
            out,
            "{:>7}  {:<20} {:<32} {} to {}",
            group.letters,
            group.error_class,
            group.kind.as_deref().unwrap_or("-"),
            group.first.to_rfc3339_opts(SecondsFormat::Secs, true),
            group.last.to_rfc3339_opts(SecondsFormat::Secs, true),
        )?;
    }
    std::io::stdout().write_all(&out)?;
    Ok(groups.iter().map(|group| group.letters).sum())
}

async fn letters(args: &DeadListArgs, database: &PgPool) -> anyhow::Result<()> {
    let letters = sqlx::query!(
        r#"
        SELECT id, pool, kind, error_class, error_text, attempts, last_failed_at, decided_by
          FROM dead_letters
         WHERE state = $1
           AND ($2::text IS NULL OR pool = $2)
           AND ($3::text IS NULL OR kind = $3)
           AND ($4::text IS NULL OR error_class = $4)
         ORDER BY id DESC
         LIMIT $5
        "#,
        args.state,
        args.filter.pool,
        args.filter.kind,
        args.filter.class,
        args.limit,
    )
    .fetch_all(database)
    .await?;
    let mut out = Vec::new();
    for letter in &letters {
        // Text from outside must not control the terminal.
        let text: String = letter.error_text.chars().take(100).flat_map(char::escape_debug).collect();
        writeln!(
            out,
            "\n{}  {}  {} in {}, {}, {} attempts{}\n    {text}",
            letter.id,
            letter.last_failed_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            letter.kind.as_deref().unwrap_or("undecodable").escape_debug(),
            letter.pool,
            letter.error_class.escape_debug(),
            letter.attempts,
            letter.decided_by.as_ref().map(|name| format!(", decided by {}", name.escape_debug())).unwrap_or_default(),
        )?;
    }
    std::io::stdout().write_all(&out)?;
    Ok(())
}
