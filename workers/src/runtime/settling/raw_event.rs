//! An event as it was received: the envelope is read, the data not yet.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use contracts::{Command, Event, Fingerprint, KeyHash, Partitions, Principal, TraceParent, WorkQueue, catalog::Kind};
use uuid::Uuid;

use crate::runtime::{failure::Failure, handler::Delivery};

/// An event with its data not yet parsed. Cheap to clone: its bytes are shared with the delivery.
#[derive(Clone, Debug)]
pub struct RawEvent {
    pub id: Uuid,
    pub kind: Arc<str>,
    pub subject: String,
    pub accepted_at: DateTime<Utc>,
    pub trace: TraceParent,
    pub principal: Principal,
    pub fingerprint: Fingerprint,
    pub parent: Option<Uuid>,
    pub attempt: u16,
    pub replay: u16,
    /// The command, as JSON.
    pub data: Bytes,
    /// The whole event, as JSON.
    pub bytes: Bytes,
}

/// Bytes that stood where an event should be.
#[derive(Debug)]
pub struct Undecodable {
    /// The bytes as they were received.
    pub bytes: Bytes,
    /// The reason why they cannot be read.
    pub reason: String,
}

/// Reads a message body, element by element: one that is unreadable spoils no other.
pub fn decode_body(body: Bytes) -> Vec<Result<RawEvent, Undecodable>> {
    match Event::decode_elements(&body) {
        Err(error) => vec![Err(Undecodable { reason: error.to_string(), bytes: body })],
        Ok(elements) if elements.is_empty() => {
            vec![Err(Undecodable { reason: "an array without events".into(), bytes: body.clone() })]
        }
        Ok(elements) => elements
            .into_iter()
            .map(|(raw, element)| match element {
                Ok(event) => Ok(RawEvent::from_event(&event, raw, &body)),
                Err(error) => Err(Undecodable { bytes: body.slice_ref(raw.as_bytes()), reason: error.to_string() }),
            })
            .collect(),
    }
}

impl RawEvent {
    fn from_event(event: &Event<'_>, raw: &str, body: &Bytes) -> Self {
        Self {
            id: event.id,
            kind: event.kind.as_ref().into(),
            subject: event.subject.as_ref().to_owned(),
            accepted_at: event.time,
            trace: event.traceparent,
            principal: event.principal,
            fingerprint: event.fingerprint,
            parent: event.parent,
            attempt: event.attempt,
            replay: event.replay,
            data: body.slice_ref(event.data.get().as_bytes()),
            bytes: body.slice_ref(raw.as_bytes()),
        }
    }

    /// Returns the typed, valid delivery.
    ///
    /// # Errors
    /// [`Failure::Poison`] where the data is not of the kind's shape or breaks its rules: no retry can mend that.
    pub fn typed<C: Command>(&self) -> Result<Delivery<C>, Failure> {
        let data = std::str::from_utf8(&self.data).map_err(Failure::poison)?;
        let command: C = serde_json::from_str(data).map_err(Failure::poison)?;
        if let Err(errors) = command.validate() {
            let fields: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
            return Err(Failure::poison(fields.join("; ")));
        }
        Ok(Delivery {
            id: self.id,
            command,
            principal: self.principal,
            accepted_at: self.accepted_at,
            trace: self.trace,
            attempt: self.attempt,
        })
    }

    /// Returns the event after a failure: one attempt more, the failure written into it.
    pub fn after_failure(&self, class: &str, text: &str) -> Bytes {
        let mut event = Event::decode(&self.bytes).expect("decoded before from the same bytes");
        event.attempt = event.attempt.saturating_add(1);
        event.first_failed_at.get_or_insert_with(Utc::now);
        event.error_class = Some(class.to_owned().into());
        event.error_text = Some(text.chars().take(2_000).collect::<String>().into());
        event.encode()
    }

    /// Returns the queue of its kind, or its partition of that; none where the kind is unknown.
    pub fn work_queue(&self, partitions: Partitions) -> Option<WorkQueue> {
        Kind::named(&self.kind).map(|kind| partitions.work_queue(kind.queue, self.key()))
    }

    /// Returns the hash of its partition key.
    pub fn key(&self) -> KeyHash {
        KeyHash::of(&self.subject)
    }
}

/// Returns the label `kind` of metrics: kinds come from outside, and an unknown one must not become a label of its own.
pub fn metric_kind(kind: &str) -> &'static str {
    Kind::named(kind).map_or("unknown", |kind| kind.name)
}
