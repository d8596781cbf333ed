//! The checked-in schemas and the AsyncAPI document match the types, and the examples are valid under them.
//! `UPDATE=1 cargo test -p contracts` writes them anew.

use std::{collections::BTreeSet, fs, path::Path};

use contracts::{
    CATALOG, Event,
    envelope::join_events,
    schema::{self, documents},
};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::one_of_each;

fn checked_in(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn validator(schema: &Value) -> Validator {
    jsonschema::meta::validate(schema).unwrap_or_else(|error| panic!("not a JSON Schema: {error}"));
    jsonschema::validator_for(schema).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_checked_in_documents_match_the_types() {
    let mut stale = Vec::new();
    for (path, document) in documents() {
        let text = format!("{document:#}\n");
        let file = checked_in(&path);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(file.parent().expect("the file has a folder")).expect("the folder can be made");
            fs::write(&file, &text).expect("the file can be written");
        }
        if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "stale: {stale:?}; after a look at the change: UPDATE=1 cargo test -p contracts");
}

#[test]
fn no_document_is_left_of_a_removed_kind() {
    let expected: BTreeSet<_> = documents().into_iter().map(|(path, _)| path).collect();
    for entry in fs::read_dir(checked_in("schemas")).expect("the schemas are checked in") {
        let path = format!("schemas/{}", entry.expect("it can be listed").file_name().to_string_lossy());
        assert!(expected.contains(&path), "{path} belongs to no kind");
    }
}

#[test]
fn every_example_keeps_to_its_schema_and_nothing_else_does() {
    for kind in CATALOG {
        let schema = schema::message_schema(kind);
        assert!(schema["title"].is_string() && schema["description"].is_string(), "{}", kind.name);
        let validator = validator(&schema);
        let example = (kind.example)();
        if let Err(error) = validator.validate(&example) {
            panic!("{}: {error}", kind.name);
        }
        for field in schema["required"].as_array().expect("every command has a required field") {
            let mut without = example.clone();
            without.as_object_mut().expect("an object").remove(field.as_str().expect("a name"));
            assert!(!validator.is_valid(&without), "{} without {field}", kind.name);
            let bytes = serde_json::to_vec(&without).expect("it serialises");
            assert!((kind.check)(&bytes).is_err(), "{} without {field} decodes", kind.name);
        }
    }
}

#[test]
fn every_event_keeps_to_the_envelope_schema() {
    let validator = validator(&schema::event_schema());
    let mut properties = BTreeSet::new();
    for event in one_of_each() {
        let mut decoded = Event::decode(&event.bytes).expect("our own event");
        (decoded.attempt, decoded.replay) = (3, 1);
        decoded.first_failed_at = Some(decoded.time);
        decoded.error_class = Some("data".into());
        decoded.error_text = Some("a reason".into());
        let full: Value = serde_json::from_slice(&decoded.encode()).expect("JSON");
        let error = validator.validate(&full).err();
        assert!(error.is_none(), "{}: {error:?}", event.kind);
        properties.extend(full.as_object().expect("an object").keys().cloned());
    }
    let described: BTreeSet<_> =
        schema::event_schema()["properties"].as_object().expect("an object").keys().cloned().collect();
    assert_eq!(properties, described, "the envelope's members and its schema's");
}

#[test]
fn the_asyncapi_document_describes_the_bodies_on_the_wire() {
    let document = schema::asyncapi();
    for event in one_of_each() {
        let reference = document["channels"][event.queue.name()]["messages"][event.kind]["$ref"].as_str();
        let pointer = reference.expect("every kind is a message of its queue").trim_start_matches('#');
        let message = document.pointer(pointer).expect("the message exists");
        let schema = json!({ "components": document["components"], "allOf": [message["payload"]] });
        let validator = jsonschema::validator_for(&schema).expect("the payload is a schema whose references resolve");
        let body = join_events([&event.bytes, &event.bytes].into_iter());
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let error = validator.validate(&body).err();
        assert!(error.is_none(), "{}: {error:?}", event.kind);
        let mut wrong = body.clone();
        wrong[0]["data"] = json!({});
        assert!(!validator.is_valid(&wrong), "{}: any data passes", event.kind);
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}
