//! The drain of the queue `dead`: every dead letter becomes a row that ops can see, and in the same transaction its
//! operation becomes `failed` unless it is settled: the client is told, never left pending.

use chrono::{DateTime, Utc};
use contracts::{Event, Outcome, Problem, ProblemType, amqp::LiveOperation, catalog::Kind, ids};
use futures::{FutureExt, future::BoxFuture};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    bisection::retry_in_place,
    collect::Deliveries,
    consumer::{Context, Interrupted, Settler},
    disposition::Outbound,
    failure::Failure,
    pool::metric_kind,
    raw_event::{RawEvent, Undecodable},
};

/// Drains the dead letters.
pub struct DeadLetterSettler;

impl Settler for DeadLetterSettler {
    fn settle<'a>(
        &'a self,
        context: &'a Context,
        deliveries: Deliveries,
    ) -> BoxFuture<'a, Result<Outbound, Interrupted>> {
        async move {
            let mut letters: Vec<Letter> = deliveries.events.iter().map(|event| Letter::of_event(context, event)).collect();
            letters.extend(deliveries.undecodable.iter().map(Letter::of_undecodable));
            // Nothing of a dead letter can be at fault for long: every column is bytes, cleaned text or a number.
            loop {
                match retry_in_place(context, || park(context, &letters)).await? {
                    Ok(()) => break,
                    Err(failure) => {
                        tracing::error!(%failure, letters = letters.len(), "dead letters cannot be parked; trying again");
                        context.wait_for_database(std::time::Instant::now(), std::time::Duration::from_secs(1)).await?;
                    }
                }
            }
            let mut outbound = Outbound::default();
            for event in &deliveries.events {
                outbound.live.operations.push(LiveOperation {
                    id: event.id,
                    state: "failed".into(),
                    user: event.principal.user_id(),
                });
            }
            for letter in &letters {
                let kind = letter.kind.as_deref().map_or("undecodable", metric_kind);
                metrics::counter!("dead_letters_total", "kind" => kind, "class" => letter.class_label()).increment(1);
            }
            Ok(outbound)
        }
        .boxed()
    }
}

struct Letter {
    id: Uuid,
    operation_id: Option<Uuid>,
    operation: Option<RawEvent>,
    pool: String,
    kind: Option<String>,
    event: Vec<u8>,
    error_class: String,
    error_text: String,
    attempts: i32,
    first_failed_at: DateTime<Utc>,
    dedupe_key: String,
}

impl Letter {
    fn of_event(context: &Context, raw: &RawEvent) -> Self {
        let event = Event::decode(&raw.bytes).expect("decoded before from the same bytes");
        let kind = Kind::named(&raw.kind);
        let self_deduplicating =
            context.registry.registered(&raw.kind).is_some_and(|kind| kind.settler.is_self_deduplicating());
        Self {
            id: ids::new_id(),
            operation_id: Some(raw.id),
            operation: (!self_deduplicating).then(|| raw.clone()),
            pool: kind.map_or("unknown", |kind| kind.queue.name()).to_owned(),
            kind: Some(clean(&raw.kind)),
            event: raw.bytes.to_vec(),
            // Without a failure of its own it came from the broker: it was delivered too often and never settled.
            error_class: event.error_class.as_deref().map_or_else(|| "process_death".to_owned(), clean),
            error_text: event
                .error_text
                .as_deref()
                .map_or_else(|| "its process died each time it was delivered alone".to_owned(), clean),
            attempts: i32::from(raw.attempt.max(1)),
            first_failed_at: event.first_failed_at.unwrap_or_else(Utc::now),
            dedupe_key: format!("{}:{}", raw.id, raw.replay),
        }
    }

    fn of_undecodable(undecodable: &Undecodable) -> Self {
        let digest = Sha256::digest(&undecodable.bytes);
        let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: ids::new_id(),
            operation_id: None,
            operation: None,
            pool: "unknown".to_owned(),
            kind: None,
            event: undecodable.bytes.to_vec(),
            error_class: "undecodable".to_owned(),
            error_text: clean(&undecodable.reason),
            attempts: 1,
            first_failed_at: Utc::now(),
            dedupe_key: format!("undecodable:{digest}"),
        }
    }

    fn class_label(&self) -> &'static str {
        ["undecodable", "process_death", "unknown_kind", "poison", "data", "conflict", "retry"]
            .into_iter()
            .find(|class| *class == self.error_class)
            .unwrap_or("other")
    }
}

/// Text that Postgres can hold.
fn clean(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(2_000).collect()
}

async fn park(context: &Context, letters: &[Letter]) -> Result<(), Failure> {
    let mut tx = context.database.begin().await?;
    let column = |of: fn(&Letter) -> String| letters.iter().map(of).collect::<Vec<_>>();
    let events: Vec<Vec<u8>> = letters.iter().map(|letter| letter.event.clone()).collect();
    sqlx::query!(
        r#"
        INSERT INTO dead_letters
              (id, operation_id, pool, kind, event, error_class, error_text, attempts,
               first_failed_at, last_failed_at, dedupe_key)
        SELECT id, operation_id, pool, kind, event, error_class, error_text, attempts, first_failed_at, now(), dedupe_key
          FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::int[],
                      $9::timestamptz[], $10::text[])
            AS new (id, operation_id, pool, kind, event, error_class, error_text, attempts, first_failed_at, dedupe_key)
            ON CONFLICT (dedupe_key) WHERE state = 'parked' DO NOTHING
        "#,
        &letters.iter().map(|letter| letter.id).collect::<Vec<_>>(),
        &letters.iter().map(|letter| letter.operation_id).collect::<Vec<_>>() as &[Option<Uuid>],
        &column(|letter| letter.pool.clone()),
        &letters.iter().map(|letter| letter.kind.clone()).collect::<Vec<_>>() as &[Option<String>],
        &events,
        &column(|letter| letter.error_class.clone()),
        &column(|letter| letter.error_text.clone()),
        &letters.iter().map(|letter| letter.attempts).collect::<Vec<_>>(),
        &letters.iter().map(|letter| letter.first_failed_at).collect::<Vec<_>>(),
        &column(|letter| letter.dedupe_key.clone()),
    )
    .execute(&mut *tx)
    .await?;
    fail_operations(&mut tx, letters).await?;
    tx.commit().await?;
    Ok(())
}

async fn fail_operations(tx: &mut sqlx::PgConnection, letters: &[Letter]) -> Result<(), Failure> {
    let operations: Vec<&RawEvent> = letters.iter().filter_map(|letter| letter.operation.as_ref()).collect();
    let problem = Problem::new(ProblemType::OperationFailed);
    let outcome = serde_json::to_value(Outcome::<Value, Value>::rejected(problem))
        .map_err(|error| Failure::Data(Box::new(error)))?;
    let principals: Vec<_> =
        operations.iter().map(|raw| raw.principal.user_id().map(|_| raw.principal.to_string())).collect();
    let fingerprints: Vec<Vec<u8>> = operations.iter().map(|raw| raw.fingerprint.as_bytes().to_vec()).collect();
    sqlx::query!(
        r#"
        INSERT INTO operations (id, kind, parent_id, principal, fingerprint, state, outcome, subject, accepted_at)
        SELECT id, kind, parent_id, principal, fingerprint, 'failed', $7, subject, accepted_at
          FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bytea[], $6::text[], $8::timestamptz[])
            AS new (id, kind, parent_id, principal, fingerprint, subject, accepted_at)
         ORDER BY id
            ON CONFLICT (id) DO NOTHING
        "#,
        &operations.iter().map(|raw| raw.id).collect::<Vec<_>>(),
        &operations.iter().map(|raw| clean(&raw.kind)).collect::<Vec<_>>(),
        &operations.iter().map(|raw| raw.parent).collect::<Vec<_>>() as &[Option<Uuid>],
        &principals as &[Option<String>],
        &fingerprints,
        &operations.iter().map(|raw| clean(&raw.subject)).collect::<Vec<_>>(),
        outcome,
        &operations.iter().map(|raw| raw.accepted_at).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
