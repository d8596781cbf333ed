//! The drain of the queue `dead`: every dead letter becomes a row that ops can see, and in the same transaction its
//! operation becomes `failed` unless it is settled: the client is notified, never left pending.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use contracts::{Event, Outcome, Problem, ProblemType, amqp::LiveOperation, catalog::Kind, ids};
use futures::{FutureExt, future::BoxFuture};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    bisection::retry_in_place,
    outbound::Outbound,
    raw_event::{RawEvent, Undecodable, metric_kind},
    registry::Registry,
    settler::{Deliveries, Settler},
};
use crate::runtime::{
    failure::Failure,
    shared::{Interrupted, PoolContext},
};

/// Parks dead letters in their table.
pub struct DeadLetterSettler {
    registry: Arc<Registry>,
}

impl DeadLetterSettler {
    /// Returns a settler that knows from the registry which kinds write operations rows.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    fn letter(&self, event: &RawEvent) -> Letter {
        let settler = self.registry.settler(&event.kind);
        Letter::of_event(event, settler.is_some_and(|settler| settler.is_self_deduplicating()))
    }
}

impl Settler for DeadLetterSettler {
    fn settle<'a>(
        &'a self,
        pool: &'a PoolContext,
        deliveries: Deliveries,
    ) -> BoxFuture<'a, Result<Outbound, Interrupted>> {
        async move {
            let mut letters: Vec<Letter> = deliveries.events.iter().map(|event| self.letter(event)).collect();
            letters.extend(deliveries.undecodable.iter().map(Letter::of_undecodable));
            park_at_last(pool, &letters).await?;
            for letter in &letters {
                let kind = letter.kind.as_deref().map_or("undecodable", metric_kind);
                metrics::counter!("dead_letters_total", "kind" => kind, "class" => letter.class_label()).increment(1);
            }
            Ok(announce(&deliveries.events))
        }
        .boxed()
    }

    fn weight(&self, kind: &str) -> usize {
        self.registry.weight(kind)
    }
}

/// Parks letters, however often it takes: none can be at fault for long, as every column is bytes, cleaned text or a
/// number.
async fn park_at_last(pool: &PoolContext, letters: &[Letter]) -> Result<(), Interrupted> {
    loop {
        match retry_in_place(pool, || park(pool, letters)).await? {
            Ok(()) => return Ok(()),
            Err(failure) => {
                tracing::error!(%failure, letters = letters.len(), "dead letters cannot be parked; trying again");
                pool.wait_for_database(Instant::now(), Duration::from_secs(1)).await?;
            }
        }
    }
}

/// The live updates of operations that failed.
fn announce(events: &[RawEvent]) -> Outbound {
    let failed =
        |event: &RawEvent| LiveOperation { id: event.id, state: "failed".into(), user: event.principal.user_id() };
    let mut outbound = Outbound::default();
    outbound.live.operations.extend(events.iter().map(failed));
    outbound
}

/// A row of `dead_letters`.
struct Letter {
    id: Uuid,
    operation_id: Option<Uuid>,
    /// The event whose operation is to fail; none where there is no operation.
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
    fn of_event(raw: &RawEvent, self_deduplicating: bool) -> Self {
        let event = Event::decode(&raw.bytes).expect("decoded before from the same bytes");
        let kind = Kind::named(&raw.kind);
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

    /// Returns the label `class` of metrics: an unknown class must not become a label of its own.
    fn class_label(&self) -> &'static str {
        ["undecodable", "process_death", "unknown_kind", "poison", "data", "conflict", "retry"]
            .into_iter()
            .find(|class| *class == self.error_class)
            .unwrap_or("other")
    }
}

/// Returns text that Postgres can hold.
fn clean(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(2_000).collect()
}

/// Writes the letters and fails their operations, in one transaction.
async fn park(pool: &PoolContext, letters: &[Letter]) -> Result<(), Failure> {
    let mut tx = pool.shared.database.begin().await?;
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

/// Marks operations as failed; those that are settled stay as they are.
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
