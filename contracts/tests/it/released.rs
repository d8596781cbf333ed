//! Released messages must decode for ever: a queue, a dead letter or a replay may hold any that was ever sent. Files in
//! `released/` are added, never edited; `checksums.txt` beside them enforces that. A further shape of a kind is a further
//! file, `<kind>.<word>.json`. `RELEASE=1 cargo test -p contracts` adds the example of a kind that has none, and the
//! checksums of what is new.

use std::{collections::BTreeMap, fs, path::PathBuf};

use contracts::{CATALOG, Event, catalog::Kind};
use sha2::{Digest, Sha256};

use crate::one_of_each;

const CHECKSUMS: &str = "checksums.txt";

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/released"))
}

fn released() -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder()).expect("the released examples are checked in");
    let names = entries.map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.ends_with(".json"))
        .map(|name| {
            let bytes = fs::read(folder().join(&name)).expect("it can be read");
            (name, bytes)
        })
        .collect()
}

fn recorded() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join(CHECKSUMS)).unwrap_or_default();
    let line = |line: &str| line.split_once("  ").map(|(sum, name)| (name.to_owned(), sum.to_owned()));
    text.lines().filter_map(line).collect()
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds the missing examples and checksums, and changes no existing ones.
fn release() {
    for event in one_of_each() {
        let file = folder().join(format!("{}.json", event.kind));
        if !file.exists() {
            let value: serde_json::Value = serde_json::from_slice(&event.bytes).expect("JSON");
            fs::write(file, format!("{value:#}\n")).expect("it can be written");
        }
    }
    let mut sums = recorded();
    for (name, bytes) in released() {
        sums.entry(name).or_insert_with(|| checksum(&bytes));
    }
    let lines: String = sums.into_iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    fs::write(folder().join(CHECKSUMS), lines).expect("it can be written");
}

#[test]
fn released_messages_decode_validate_and_never_change() {
    if std::env::var_os("RELEASE").is_some() {
        release();
    }
    let files = released();
    let sums: BTreeMap<_, _> = files.iter().map(|(name, bytes)| (name.clone(), checksum(bytes))).collect();
    assert_eq!(
        sums,
        recorded(),
        "released examples are never edited or removed; a new one: RELEASE=1 cargo test -p contracts"
    );
    for kind in CATALOG {
        assert!(files.contains_key(&format!("{}.json", kind.name)), "{} has no released example: RELEASE=1", kind.name);
    }
    for (name, bytes) in files {
        let event = Event::decode(&bytes).unwrap_or_else(|error| panic!("{name} no longer decodes: {error}"));
        let kind = Kind::named(&event.kind).unwrap_or_else(|| panic!("{name}: the kind {} is gone", event.kind));
        assert!(name.starts_with(kind.name), "{name} holds a {}", kind.name);
        (kind.check)(event.data.get().as_bytes()).unwrap_or_else(|error| panic!("{name} is no longer valid: {error}"));
    }
}

#[test]
fn members_that_a_later_version_may_add_are_ignored() {
    for (name, bytes) in released() {
        let mut value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        value["anextension"] = "of a later gateway".into();
        value["datacontenttype"] = "application/json".into();
        let bytes = serde_json::to_vec(&value).expect("it serialises");
        assert!(Event::decode(&bytes).is_ok(), "{name} with a further extension");
    }
}
