//! The structure of the workspace, held by reading its sources: imports between the folders of a crate run one way, public
//! types have names of their own, files are short, and doc comments open with the thing itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The crates whose folders are rooms.
const CRATES: [&str; 3] = ["contracts", "gateway", "workers"];
const FILE_LINES_MAX: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("contracts/testkit lies in the workspace")
        .to_owned()
}

/// Every source file below a folder, without its tests.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).expect("UTF-8");
            found.push((entry, text));
        }
    }
    found
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

/// The room of a file: its top folder, or its own name where it lies at the top.
fn room(source: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(source).expect("below the source folder");
    let first = inside.components().next().expect("a file").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Every `crate::room` that a file names, also in braces of one `use crate::{…}`.
fn rooms_named(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 1 && (character.is_alphanumeric() || character == '_') {
                    word.push(character);
                } else if !word.is_empty() {
                    named.insert(std::mem::take(&mut word));
                    // The rest of a path is not a room.
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            named.insert(
                rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect(),
            );
        }
    }
    named
}

/// The first cycle among the rooms, if there is one.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        graph: &BTreeMap<String, BTreeSet<String>>,
        room: &str,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|seen| seen == room) {
            return Some(way[start..].to_vec());
        }
        if !done.insert(room.to_owned()) {
            return None;
        }
        way.push(room.to_owned());
        let found = graph.get(room).into_iter().flatten().find_map(|next| visit(graph, next, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|room| visit(graph, room, &mut Vec::new(), &mut done))
}

#[test]
fn no_import_cycle_joins_the_folders_of_a_crate() {
    for name in CRATES {
        let source = root().join(name).join("src");
        let files = sources(&source);
        let rooms: BTreeSet<String> = files.iter().map(|(file, _)| room(&source, file)).collect();
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (file, text) in &files {
            let from = room(&source, file);
            let named = rooms_named(without_tests(text));
            let others = named.into_iter().filter(|to| rooms.contains(to) && *to != from && to != "lib");
            graph.entry(from.clone()).or_default().extend(others);
        }
        assert!(graph.len() >= 8, "{name}: only {} rooms were found", graph.len());
        assert_eq!(cycle(&graph), None, "{name}: these import each other; move what they share into a room below");
    }
}

#[test]
fn a_cycle_would_be_found() {
    let edge = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|to| (*to).to_owned()).collect());
    let graph = BTreeMap::from([edge("a", &["b"]), edge("b", &["c"]), edge("c", &["b"])]);
    assert_eq!(cycle(&graph), Some(vec!["b".to_owned(), "c".to_owned()]));
    let named = rooms_named("use crate::{auth::{Auth, attempts}, http::ApiError};\nlet x = crate::live::follow();");
    for room in ["auth", "http", "live"] {
        assert!(named.contains(room), "{named:?}");
    }
    assert!(!named.contains("attempts"), "{named:?}");
}

#[test]
fn no_two_public_types_share_a_name() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for folder in ["contracts/src", "contracts/testkit/src", "gateway/src", "workers/src", "workers/renderer/src"] {
        for (file, text) in sources(&root().join(folder)) {
            for line in without_tests(&text).lines() {
                let Some(rest) = line.strip_prefix("pub ") else { continue };
                let Some((keyword, rest)) = rest.split_once(' ') else { continue };
                if ["struct", "enum", "trait", "type"].contains(&keyword) {
                    let name = rest.chars().take_while(|character| character.is_alphanumeric()).collect();
                    places.entry(name).or_default().insert(file.display().to_string());
                }
            }
        }
    }
    let shared: Vec<_> = places.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(places.len() > 150, "only {} types were found", places.len());
    assert!(shared.is_empty(), "names that stand for two things: {shared:#?}");
}

#[test]
fn doc_comments_open_with_the_thing_and_files_are_short() {
    let riddles = ["Who", "Whom", "Whose", "What", "Whether"];
    let mut wrong = Vec::new();
    for folder in ["contracts", "gateway/src", "workers/src", "workers/renderer/src", "loadtest/bench/src"] {
        for (file, text) in sources(&root().join(folder)) {
            if file.components().any(|part| part.as_os_str() == "target") {
                continue;
            }
            let mut is_inside = false;
            for (n, line) in text.lines().enumerate() {
                let comment = line.trim_start();
                let text = comment.strip_prefix("/// ").or_else(|| comment.strip_prefix("//! "));
                let first = text.and_then(|text| text.split([' ', ',', '.']).next()).unwrap_or_default();
                if !is_inside && riddles.contains(&first) {
                    wrong.push(format!("{}:{} opens with {first}", file.display(), n + 1));
                }
                is_inside = text.is_some();
            }
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                wrong.push(format!("{} has {lines} lines", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
