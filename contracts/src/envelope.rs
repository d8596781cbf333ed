//! The wire format: CloudEvents 1.0 in JSON. The body of every AMQP message is a CloudEvents batch
//! (`application/cloudevents-batch+json`): an array of 1 to 64 events, at most 256 KiB, all of one queue. Decoding
//! borrows from the delivery.

use std::borrow::Cow;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Command, Fingerprint, KeyHash, Partitions, Principal, Queue, TraceParent, WorkQueue};

/// The content type of every message body.
pub const CONTENT_TYPE: &str = "application/cloudevents-batch+json";
/// Most events in one message.
pub const MESSAGE_EVENTS_MAX: usize = 64;
/// Most bytes in one message.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// White space of JSON (RFC 8259, section 2).
const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// One event as it travels. Extension names follow CloudEvents 1.0 §3.1 (lower-case letters and digits).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event<'a> {
    /// Always `1.0`.
    #[serde(borrow)]
    pub specversion: Cow<'a, str>,
    /// The operation's id, which is also the key of deduplication.
    pub id: Uuid,
    /// The command's `KIND`.
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// The program that created it: `/gateway`, `/workers/payments`, `/clock`.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The partition key.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
    /// When the gateway accepted it (or the pool published it), UTC.
    pub time: DateTime<Utc>,
    /// W3C trace context (the CloudEvents distributed tracing extension).
    pub traceparent: TraceParent,
    /// The requester.
    pub principal: Principal,
    /// The fingerprint of the original payload; kept through retry, edit and replay.
    pub fingerprint: Fingerprint,
    /// The command whose follow-up this is.
    #[serde(rename = "parentid", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Uuid>,
    /// Number of failed attempts that went through the retry ladder; 0 the first time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u16,
    /// Number of replays from the dead letters by an operator. Only a replay may replace a `failed` operation.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replay: u16,
    /// Time of its first failure, UTC.
    #[serde(rename = "firstfailedat", default, skip_serializing_if = "Option::is_none")]
    pub first_failed_at: Option<DateTime<Utc>>,
    /// The class of its last failure.
    #[serde(rename = "errorclass", default, skip_serializing_if = "Option::is_none", borrow)]
    pub error_class: Option<Cow<'a, str>>,
    /// The text of its last failure.
    #[serde(rename = "errortext", default, skip_serializing_if = "Option::is_none", borrow)]
    pub error_text: Option<Cow<'a, str>>,
    /// The command's data as unparsed JSON.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

/// The reason why a message body, or one event of it, could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, not an array, or an element that is no CloudEvent of ours.
    #[error("not a CloudEvents batch of ours: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Not `specversion` 1.0.
    #[error("CloudEvents specversion `{0}` is not supported")]
    Version(String),
}

impl<'a> Event<'a> {
    /// Decodes one event.
    ///
    /// # Errors
    /// [`DecodeError`] where it is no CloudEvents 1.0 event with our extensions.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let event: Event<'a> = serde_json::from_slice(bytes)?;
        if event.specversion != "1.0" {
            return Err(DecodeError::Version(event.specversion.into_owned()));
        }
        Ok(event)
    }

    /// Decodes a message body: each element, or its bytes and the reason why it cannot be decoded. A malformed element
    /// does not affect its neighbours.
    ///
    /// # Errors
    /// [`DecodeError`] where the body as a whole is no JSON array.
    #[allow(clippy::type_complexity)]
    pub fn decode_message(body: &'a [u8]) -> Result<Vec<Result<Event<'a>, (&'a str, DecodeError)>>, DecodeError> {
        let elements = Event::decode_elements(body)?;
        Ok(elements.into_iter().map(|(raw, event)| event.map_err(|error| (raw, error))).collect())
    }

    /// As [`Self::decode_message`], with each element's own bytes in the body.
    ///
    /// # Errors
    /// [`DecodeError`] where the body as a whole is no JSON array.
    #[allow(clippy::type_complexity)]
    pub fn decode_elements(body: &'a [u8]) -> Result<Vec<(&'a str, Result<Event<'a>, DecodeError>)>, DecodeError> {
        // UTF-8 is checked once for the whole body, not string by string, and each event is decoded in place.
        let events = std::str::from_utf8(body).ok().and_then(Self::decode_valid);
        if let Some(events) = events {
            return Ok(events);
        }
        // Something is malformed: elements are delimited first and decoded one by one, so that a bad one affects no
        // other.
        let raw: Vec<&'a RawValue> = serde_json::from_slice(body)?;
        Ok(raw.into_iter().map(|raw| (raw.get(), Event::decode(raw.get().as_bytes()))).collect())
    }

    /// The fast path: the events of an array of valid events; none where any part of it is malformed.
    #[allow(clippy::type_complexity)]
    fn decode_valid(body: &'a str) -> Option<Vec<(&'a str, Result<Event<'a>, DecodeError>)>> {
        let mut events = Vec::with_capacity(MESSAGE_EVENTS_MAX);
        let mut rest = body.trim_matches(JSON_SPACE).strip_prefix('[')?;
        loop {
            rest = rest.trim_start_matches(JSON_SPACE);
            let mut elements = serde_json::Deserializer::from_str(rest).into_iter::<Event<'a>>();
            let event = elements.next()?.ok().filter(|event| event.specversion == "1.0")?;
            let (element, after) = rest.split_at(elements.byte_offset());
            events.push((element, Ok(event)));
            let after = after.trim_start_matches(JSON_SPACE);
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => return (after == "]").then_some(events),
            }
        }
    }

    /// The event as JSON bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(512 + self.data.get().len());
        serde_json::to_writer(&mut out, self).expect("an event holds only strings, numbers and valid raw JSON");
        out.into()
    }
}

/// One event to be published: its queue and its bytes.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The operation's id.
    pub id: Uuid,
    /// The queue of its kind.
    pub queue: Queue,
    /// Hash of its partition key: selects the partition where the queue is split.
    pub key: KeyHash,
    /// The command's `KIND`, for metrics.
    pub kind: &'static str,
    /// The encoded [`Event`].
    pub bytes: Bytes,
    /// The fingerprint of the payload.
    pub fingerprint: Fingerprint,
}

/// The attributes of an event that do not come from its command.
#[derive(Clone, Debug)]
pub struct Origin<'a> {
    /// The program that creates it: `/gateway`, `/workers/payments`, `/clock`.
    pub source: &'a str,
    /// The requester.
    pub principal: Principal,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// The trace it belongs to.
    pub trace: TraceParent,
    /// The command whose follow-up it is.
    pub parent: Option<Uuid>,
}

/// A command that was serialised once and has no id yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The command's `KIND`.
    pub kind: &'static str,
    queue: Queue,
    subject: String,
    fingerprint: Fingerprint,
    data: Box<RawValue>,
}

impl Draft {
    /// Serialises a command.
    pub fn new<C: Command>(command: &C) -> Self {
        let data =
            serde_json::value::to_raw_value(command).expect("commands serialise: plain structs with string keys");
        let fingerprint = Fingerprint::of(C::KIND, data.get().as_bytes());
        Self { kind: C::KIND, queue: C::QUEUE, subject: command.partition_key(), fingerprint, data }
    }

    /// The event with this id.
    pub fn event(&self, id: Uuid, origin: &Origin<'_>) -> NewEvent {
        let event = Event {
            specversion: "1.0".into(),
            id,
            kind: self.kind.into(),
            source: origin.source.into(),
            subject: self.subject.as_str().into(),
            time: origin.accepted_at,
            traceparent: origin.trace,
            principal: origin.principal,
            fingerprint: self.fingerprint,
            parent: origin.parent,
            attempt: 0,
            replay: 0,
            first_failed_at: None,
            error_class: None,
            error_text: None,
            data: &self.data,
        };
        NewEvent {
            id,
            queue: self.queue,
            key: KeyHash::of(&self.subject),
            kind: self.kind,
            bytes: event.encode(),
            fingerprint: self.fingerprint,
        }
    }
}

impl NewEvent {
    /// Wraps a command. One serialisation of the data, one of the envelope.
    pub fn new<C: Command>(id: Uuid, command: &C, origin: &Origin<'_>) -> Self {
        Draft::new(command).event(id, origin)
    }

    /// The work queue that it goes to: the whole queue, or a partition of it.
    pub fn work_queue(&self, partitions: Partitions) -> WorkQueue {
        partitions.work_queue(self.queue, self.key)
    }
}

/// Joins encoded events into one message body.
pub fn join_events<'a>(events: impl ExactSizeIterator<Item = &'a Bytes> + Clone) -> Vec<u8> {
    let size: usize = events.clone().map(|event| event.len() + 1).sum();
    let mut body = Vec::with_capacity(size + 1);
    body.push(b'[');
    for (i, event) in events.enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
    body.push(b']');
    body
}
