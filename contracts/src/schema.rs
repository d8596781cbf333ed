//! Documents for other programs: a JSON Schema (draft 2020-12) of every kind and of the envelope, and an AsyncAPI 3.0
//! document of the queues. Generated from the catalog and checked in under `contracts/schemas/` and
//! `contracts/asyncapi.json`; a test asserts that the files match the types.

use serde_json::{Map, Value, json};

use crate::{
    CATALOG, Partitions, Queue, Role,
    catalog::Kind,
    envelope::{CONTENT_TYPE, MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX},
};

/// Base of the schemas' `$id`s; identifiers, not addresses that must answer.
const ID_BASE: &str = "https://registrar.example/schemas/";
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Every checked-in document: its path under `contracts/`, and its content.
pub fn documents() -> Vec<(String, Value)> {
    let mut documents: Vec<_> =
        CATALOG.iter().map(|kind| (format!("schemas/{}.json", kind.name), message_schema(kind))).collect();
    documents.push(("schemas/cloudevent.json".to_owned(), event_schema()));
    documents.push(("asyncapi.json".to_owned(), asyncapi()));
    documents
}

/// The schema of one kind's data.
pub fn message_schema(kind: &Kind) -> Value {
    let mut schema = (kind.schema)().to_value();
    let members = schema.as_object_mut().expect("a command is a struct, so its schema is an object");
    members.insert("$schema".to_owned(), DIALECT.into());
    members.insert("$id".to_owned(), format!("{ID_BASE}{}.json", kind.name).into());
    members.insert("examples".to_owned(), json!([(kind.example)()]));
    schema
}

/// The schema of one event, whatever its kind.
pub fn event_schema() -> Value {
    let mut schema = json!({
        "$schema": DIALECT,
        "$id": format!("{ID_BASE}cloudevent.json"),
        "title": "Event",
        "description": "A CloudEvents 1.0 event; the body of a message is an array of them.",
        "type": "object",
        "required": [
            "specversion", "id", "type", "source", "subject", "time", "traceparent", "principal", "fingerprint", "data"
        ],
    });
    schema["properties"] = context_attributes();
    schema["properties"]["data"] = json!({ "description": "The command's data, by the schema of its type." });
    schema
}

fn context_attributes() -> Value {
    let kinds: Vec<_> = CATALOG.iter().map(|kind| kind.name).collect();
    let roles = Role::ALL.map(Role::name).join("|");
    let principal = format!("^(anonymous|system|({roles}):[0-9a-f-]{{36}})$");
    let source = "The program that created it: `/gateway`, `/workers/payments`, `/clock`.";
    json!({
        "specversion": { "const": "1.0" },
        "id": formatted("uuid", "The operation's id, which is also the key of deduplication."),
        "type": { "enum": kinds, "description": "The kind, with its version." },
        "source": formatted("uri-reference", source),
        "subject": { "type": "string", "description": "The partition key." },
        "time": formatted("date-time", "Time of acceptance, UTC."),
        "traceparent": matching("^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$", "W3C Trace Context."),
        "principal": matching(&principal, "The requester."),
        "fingerprint": matching("^[0-9a-f]{32}$", "The fingerprint of the original payload."),
        "parentid": formatted("uuid", "The command whose follow-up this is."),
        "attempt": count("Number of failed attempts that went through the retry ladder."),
        "replay": count("Number of replays from the dead letters by an operator."),
        "firstfailedat": formatted("date-time", "Time of its first failure, UTC."),
        "errorclass": { "type": "string", "description": "The class of its last failure." },
        "errortext": { "type": "string", "description": "The text of its last failure." },
    })
}

fn formatted(format: &str, description: &str) -> Value {
    json!({ "type": "string", "format": format, "description": description })
}

fn matching(pattern: &str, description: &str) -> Value {
    json!({ "type": "string", "pattern": pattern, "description": description })
}

fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": u16::MAX, "description": description })
}

/// The AsyncAPI 3.0 document: a channel a queue, a message a kind; the gateway and the workers send, the pools receive.
pub fn asyncapi() -> Value {
    let channels: Map<String, Value> =
        Queue::ALL.into_iter().map(|queue| (queue.name().to_owned(), channel(queue))).collect();
    let messages: Map<String, Value> = CATALOG.iter().map(|kind| (kind.name.to_owned(), message(kind))).collect();
    let operations: Map<String, Value> = Queue::ALL.into_iter().flat_map(operations).collect();
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:registrar:messages",
        "info": {
            "title": "Registrar messages",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Every AMQP message is a CloudEvents batch: a JSON array of 1 to {MESSAGE_EVENTS_MAX} events, at most \
                 {MESSAGE_BYTES_MAX} bytes, all of one queue. A message below is such an array that holds an event of \
                 its kind."
            ),
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": component_schemas() },
    })
}

fn kinds_of(queue: Queue) -> impl Iterator<Item = &'static Kind> {
    CATALOG.iter().filter(move |kind| kind.queue == queue)
}

fn channel(queue: Queue) -> Value {
    let name = queue.name();
    let messages: Map<String, Value> = kinds_of(queue)
        .map(|kind| (kind.name.to_owned(), json!({ "$ref": format!("#/components/messages/{}", kind.name) })))
        .collect();
    let mut description =
        format!("The work queue of the pool `{name}`. Publish to the exchange `commands` with this routing key.");
    if Partitions::may_split(queue) {
        description.push_str(&format!(
            " An installation may split it into `{name}.0`, `{name}.1`, …, by the 64-bit FNV-1a hash of an event's \
             subject, its high half folded into the low one by exclusive or, modulo their number. Events published to \
             this queue nevertheless are settled, in no order relative to those of the partitions."
        ));
    }
    json!({
        "address": name,
        "description": description,
        "messages": messages,
        "bindings": { "amqp": {
            "is": "queue",
            "queue": { "name": name, "durable": true, "exclusive": false, "autoDelete": false },
            "bindingVersion": "0.3.0",
        } },
    })
}

fn operations(queue: Queue) -> Vec<(String, Value)> {
    let name = queue.name();
    let messages: Vec<_> =
        kinds_of(queue).map(|kind| json!({ "$ref": format!("#/channels/{name}/messages/{}", kind.name) })).collect();
    let operation = |action: &str, summary: String, bindings: Value| {
        json!({
            "action": action,
            "channel": { "$ref": format!("#/channels/{name}") },
            "summary": summary,
            "messages": messages,
            "bindings": { "amqp": bindings },
        })
    };
    let sent = json!({ "deliveryMode": 2, "bindingVersion": "0.3.0" });
    let received = json!({ "ack": true, "bindingVersion": "0.3.0" });
    vec![
        (
            format!("send.{name}"),
            operation("send", format!("Send commands to the pool `{name}`, and await the confirm."), sent),
        ),
        (
            format!("receive.{name}"),
            operation("receive", format!("Settle the events of `{name}`, each exactly once in effect."), received),
        ),
    ]
}

fn message(kind: &Kind) -> Value {
    json!({
        "name": kind.name,
        "title": kind.name,
        "summary": kind.summary,
        "contentType": CONTENT_TYPE,
        "payload": { "allOf": [
            reference(&format!("batch.{}", kind.queue.name())),
            { "contains": reference(&format!("event.{}", kind.name)) },
        ] },
    })
}

/// `cloudevent`; the data `<kind>` and the event `event.<kind>` of every kind; the body `batch.<queue>` of every queue.
fn component_schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    schemas.insert("cloudevent".to_owned(), without_identity(event_schema()));
    for kind in CATALOG {
        let own = json!({ "properties": { "type": { "const": kind.name }, "data": reference(kind.name) } });
        schemas.insert(kind.name.to_owned(), component_schema(kind));
        schemas.insert(format!("event.{}", kind.name), json!({ "allOf": [reference("cloudevent"), own] }));
    }
    for queue in Queue::ALL {
        let events: Vec<_> = kinds_of(queue).map(|kind| reference(&format!("event.{}", kind.name))).collect();
        let body =
            json!({ "type": "array", "minItems": 1, "maxItems": MESSAGE_EVENTS_MAX, "items": { "anyOf": events } });
        schemas.insert(format!("batch.{}", queue.name()), body);
    }
    schemas
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// A kind's schema with references that resolve within the AsyncAPI document, where its `$defs` are nested deeper.
fn component_schema(kind: &Kind) -> Value {
    let mut schema = without_identity(message_schema(kind));
    rebase_references(&mut schema, &format!("#/components/schemas/{}/$defs/", kind.name));
    schema
}

/// The schema without `$id`: with one of its own, its references would not be resolved within the document.
fn without_identity(mut schema: Value) -> Value {
    if let Some(members) = schema.as_object_mut() {
        members.remove("$id");
        members.remove("$schema");
    }
    schema
}

fn rebase_references(value: &mut Value, base: &str) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str().and_then(|text| text.strip_prefix("#/$defs/")) {
                    Some(definition) if name == "$ref" => *member = format!("{base}{definition}").into(),
                    _ => rebase_references(member, base),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rebase_references(item, base)),
        _ => {}
    }
}
