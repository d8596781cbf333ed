//! `workers dead replay`: publishes the same event again, under the same id and fingerprint, so that it settles the
//! operation that failed and nothing else. A letter is marked as replayed only once the broker has confirmed its event; a
//! crash in between leaves it parked, and the inbox deduplicates an event that is published twice.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use contracts::{
    Event, KeyHash, NewEvent, Partitions,
    amqp::{AmqpSettings, Publisher},
    catalog::Kind,
};
use secrecy::ExposeSecret;
use serde_json::value::RawValue;
use sqlx::PgPool;
use uuid::Uuid;

use super::selection::{self, Decision, Selection};
use crate::config::WorkerSettings;

/// The longest wait for a connection to the broker before the first replay.
const BROKER_WAIT: Duration = Duration::from_secs(10);

/// The dead letters to replay, and how.
#[derive(Debug, clap::Args)]
pub struct DeadReplayArgs {
    #[command(flatten)]
    selection: Selection,

    /// Only print what would be replayed.
    #[arg(long)]
    dry_run: bool,

    /// Events a second at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Replace the command's data by the JSON in this file; for one letter only. Id and fingerprint stay.
    #[arg(long, value_name = "FILE", conflicts_with = "cohort")]
    edit: Option<PathBuf>,
}

/// Replays the selected dead letters, oldest first.
pub(super) async fn run(args: &DeadReplayArgs, settings: &WorkerSettings, database: &PgPool) -> anyhow::Result<()> {
    let edit = args.edit.as_deref().map(read_edit).transpose()?;
    ensure!(edit.is_none() || args.selection.ids.len() == 1, "--edit is for exactly one dead letter");
    let ids = args.selection.freeze(database).await?;
    if args.dry_run {
        return dry_run(&ids, edit.as_deref(), database, settings.partitions).await;
    }
    args.selection.confirm("replay", ids.len())?;
    if ids.is_empty() {
        return Ok(());
    }
    let amqp = AmqpSettings::new(settings.amqp.url.expose_secret(), "workers dead replay");
    let publisher = Publisher::start(amqp.split(settings.partitions));
    ensure!(publisher.wait_connected(BROKER_WAIT).await, "the broker cannot be reached; nothing was replayed");
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / args.rate);
    let mut skipped = 0_usize;
    for id in &ids {
        ticks.tick().await;
        match replay(*id, args, edit.as_deref(), database, &publisher).await? {
            Ok(()) => println!("{id} replayed"),
            Err(reason) => {
                skipped += 1;
                println!("{id} skipped: {reason}");
            }
        }
    }
    println!("{} replayed, {skipped} skipped", ids.len() - skipped);
    ensure!(skipped == 0, "{skipped} dead letters were not replayed; the lines above say why");
    Ok(())
}

async fn dry_run(
    ids: &[Uuid],
    edit: Option<&RawValue>,
    database: &PgPool,
    partitions: Partitions,
) -> anyhow::Result<()> {
    for id in ids {
        let mut tx = database.begin().await?;
        match selection::lock(&mut tx, *id).await? {
            None => println!("{id} would be skipped: somebody else has decided on it"),
            Some(parked) => match revive(&parked.event, edit) {
                Ok(revived) => println!("{id} would go to {}", revived.work_queue(partitions)),
                Err(reason) => println!("{id} would be skipped: {reason}"),
            },
        }
    }
    println!("{} dead letters; nothing was done (--dry-run)", ids.len());
    Ok(())
}

/// Replays one letter; the inner error is the reason why it was skipped.
async fn replay(
    id: Uuid,
    args: &DeadReplayArgs,
    edit: Option<&RawValue>,
    database: &PgPool,
    publisher: &Publisher,
) -> anyhow::Result<Result<(), String>> {
    let mut tx = database.begin().await?;
    let Some(parked) = selection::lock(&mut tx, id).await? else {
        return Ok(Err("somebody else has decided on it".to_owned()));
    };
    let revived = match revive(&parked.event, edit) {
        Ok(revived) => revived,
        Err(reason) => return Ok(Err(reason)),
    };
    publisher.publish(revived.clone()).await.with_context(|| {
        format!("{id} and what comes after it is not replayed; the same command goes on from there")
    })?;
    let decision = Decision {
        state: "replayed",
        action: "dead_letter.replay",
        decided_by: &args.selection.decided_by,
        reason: None,
        edited_event: edit.is_some().then_some(revived.bytes.as_ref()),
    };
    selection::decide(&mut tx, id, &parked, &decision).await?;
    tx.commit().await?;
    Ok(Ok(()))
}

/// Returns the event to publish: with attempt 0, without its failure, and its replay counter one higher. An edit does not
/// change its partition key.
fn revive(event: &[u8], edit: Option<&RawValue>) -> Result<NewEvent, String> {
    let mut event = Event::decode(event).map_err(|error| format!("it cannot be read, so only discarded: {error}"))?;
    let kind = Kind::named(&event.kind).ok_or_else(|| format!("this program does not know the kind {}", event.kind))?;
    if let Some(edit) = edit {
        (kind.check)(edit.get().as_bytes()).map_err(|why| format!("the edited data is no {}: {why}", kind.name))?;
        event.data = edit;
    }
    event.attempt = 0;
    event.replay = event.replay.saturating_add(1);
    event.first_failed_at = None;
    event.error_class = None;
    event.error_text = None;
    Ok(NewEvent {
        id: event.id,
        queue: kind.queue,
        key: KeyHash::of(&event.subject),
        kind: kind.name,
        bytes: event.encode(),
        fingerprint: event.fingerprint,
    })
}

fn read_edit(path: &std::path::Path) -> anyhow::Result<Box<RawValue>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--edit {}", path.display()))?;
    match serde_json::from_str(&text) {
        Ok(data) => Ok(data),
        Err(error) => bail!("--edit {}: no JSON: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use contracts::{Command, Principal, Queue, TraceParent, envelope::Origin, messages::SubmitPayment};

    use super::*;

    fn parked() -> (NewEvent, Bytes) {
        let origin = Origin {
            source: "/gateway",
            principal: Principal::Anonymous,
            accepted_at: chrono::Utc::now(),
            trace: TraceParent::new(),
            parent: None,
        };
        let fresh = NewEvent::new(contracts::ids::new_id(), &SubmitPayment::example(), &origin);
        let mut event = Event::decode(&fresh.bytes).expect("just encoded");
        event.attempt = 8;
        event.replay = 1;
        event.error_class = Some("data".into());
        event.error_text = Some("boom".into());
        event.first_failed_at = Some(chrono::Utc::now());
        let bytes = event.encode();
        (fresh, bytes)
    }

    #[test]
    fn a_replay_is_the_same_event_tried_anew() {
        let (fresh, parked) = parked();
        let revived = revive(&parked, None).expect("it can be read");
        assert_eq!((revived.queue, revived.key), (Queue::Payments, fresh.key));
        let event = Event::decode(&revived.bytes).expect("encoded");
        assert_eq!((event.id, event.fingerprint), (fresh.id, fresh.fingerprint));
        assert_eq!((event.attempt, event.replay), (0, 2));
        assert!(event.error_class.is_none() && event.error_text.is_none() && event.first_failed_at.is_none());
    }

    #[test]
    fn an_edit_replaces_the_data_and_keeps_id_and_fingerprint() {
        let (fresh, parked) = parked();
        let other = SubmitPayment { currency: "EUR".into(), ..SubmitPayment::example() };
        let edit = serde_json::value::to_raw_value(&other).expect("serialises");
        let revived = revive(&parked, Some(&edit)).expect("valid data");
        let event = Event::decode(&revived.bytes).expect("encoded");
        assert_eq!((event.id, event.fingerprint), (fresh.id, fresh.fingerprint));
        assert_eq!(event.data.get(), edit.get());
        let bad: Box<RawValue> = serde_json::from_str(r#"{"amount":"-1"}"#).expect("JSON");
        assert!(revive(&parked, Some(&bad)).is_err());
    }

    #[test]
    fn what_cannot_be_read_cannot_be_replayed() {
        assert!(revive(b"{\"half\":", None).expect_err("no event").contains("only discarded"));
    }
}
