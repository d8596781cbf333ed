//! `workers dead show`: prints one letter with its event. An event that is no JSON is printed as escaped bytes.

use std::io::Write;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

/// The dead letter to show.
#[derive(Debug, clap::Args)]
pub struct DeadShowArgs {
    /// Its id, as listed.
    #[arg(value_name = "ID")]
    id: Uuid,
}

/// Prints the dead letter.
pub(super) async fn run(args: &DeadShowArgs, database: &PgPool) -> anyhow::Result<()> {
    let letter = sqlx::query!("SELECT * FROM dead_letters WHERE id = $1", args.id)
        .fetch_optional(database)
        .await?
        .with_context(|| format!("there is no dead letter {}", args.id))?;
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut out = Vec::new();
    writeln!(out, "dead letter   {}", letter.id)?;
    writeln!(
        out,
        "operation     {}",
        letter.operation_id.map_or_else(|| "none: it could not be read".to_owned(), |id| id.to_string())
    )?;
    writeln!(out, "pool, kind    {}, {}", letter.pool, letter.kind.as_deref().unwrap_or("-").escape_debug())?;
    writeln!(out, "failure       {}: {}", letter.error_class.escape_debug(), letter.error_text.escape_debug())?;
    writeln!(
        out,
        "attempts      {}, from {} to {}",
        letter.attempts,
        time(letter.first_failed_at),
        time(letter.last_failed_at)
    )?;
    match (&letter.decided_by, letter.decided_at) {
        (Some(name), Some(at)) => {
            writeln!(out, "state         {} by {} at {}", letter.state, name.escape_debug(), time(at))?
        }
        _ => writeln!(out, "state         {}", letter.state)?,
    }
    writeln!(out, "event\n{}", readable(&letter.event))?;
    if let Some(edited) = &letter.edited_event {
        writeln!(out, "replayed as\n{}", readable(edited))?;
    }
    std::io::stdout().write_all(&out)?;
    Ok(())
}

/// Returns JSON indented, its control characters escaped; anything else as escaped bytes.
fn readable(event: &[u8]) -> String {
    serde_json::from_slice::<Value>(event)
        .and_then(|json| serde_json::to_string_pretty(&json))
        .unwrap_or_else(|_| event.escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn an_event_is_shown_whatever_it_is() {
        assert_eq!(readable(br#"{"a":"\u0000"}"#), "{\n  \"a\": \"\\u0000\"\n}");
        assert_eq!(readable(b"\x1b[2Jnot json\xff"), "\\x1b[2Jnot json\\xff");
    }
}
