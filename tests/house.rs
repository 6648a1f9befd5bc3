//! The house's rules, read off its source: who may import whom, what pure code may not touch, how large a file may grow, and that
//! names on the wire stay plain. A breach names the file and the line.

use std::fs;
use std::path::{Path, PathBuf};

/// A room, and the rooms of ours that it may import. A room that is not listed may not exist.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &["model"]),
    ("ids", &["model"]),
    ("decide", &["model"]),
    ("observe", &["model", "clock"]),
    ("store", &["model", "clock", "observe"]),
    ("telemetry", &["model", "clock", "observe"]),
    ("wire", &["shapes"]),
    ("schedule", &["model", "decide", "store", "ids"]),
    ("api", &["model", "store", "telemetry", "wire", "decide", "clock", "ids", "observe", "schedule", "shapes"]),
    ("control", &["model", "store", "telemetry", "decide", "clock", "ids", "observe", "schedule"]),
    ("agent", &["model", "decide", "clock", "observe", "frames"]),
    ("export", &["model", "store", "telemetry", "decide", "observe", "api"]),
    ("frames", &["model"]),
    ("http", &["api", "wire", "telemetry", "export", "model", "frames", "observe"]),
    ("sim", &["model", "decide", "store", "control", "telemetry", "agent", "clock", "ids", "api", "wire", "schedule", "app"]),
    ("replay", &["model", "decide", "store", "telemetry", "api", "clock", "schedule"]),
    (
        "cli",
        &[
            "model",
            "app",
            "agent",
            "bench",
            "demo",
            "load",
            "replay",
            "web",
            "observe",
            "clock",
            "telemetry",
            "testbed",
            "store",
            "sim",
            "export",
            "ids",
        ],
    ),
];

/// Wiring and programs of their own: may import what they like.
const EDGES: &[&str] = &["app", "main", "lib", "pause", "testbed", "demo", "load", "web", "bench"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 50, "the source is not where this test looks");
    found.into_iter().map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text)).collect()
}

fn room(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Lines outside of test modules, with their numbers. Test code may lean on whatever shows the fault.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().enumerate().map(|(n, line)| (n + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    stem == "tests" || stem == "golden" || path.components().any(|c| c.as_os_str() == "tests")
}

/// Whether `word` stands in the line and is not the end of a longer one.
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The rooms that a line of code names by `crate::room`, also inside braces.
fn imported(line: &str) -> Vec<String> {
    let word = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            rooms.push(word(&std::mem::take(&mut item)));
                            continue;
                        }
                        _ => {}
                    }
                    item.push(c);
                }
                rooms.push(word(&item));
            }
            None => rooms.push(word(rest)),
        }
    }
    rooms.retain(|r| !r.is_empty() && r != "Error");
    rooms
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        let room = room(&path);
        if EDGES.contains(&room.as_str()) || is_test(&path) {
            continue;
        }
        let Some((_, may)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else {
            breaches.push(format!("{}: no rule for the room {room}", path.display()));
            continue;
        };
        for (n, line) in code(&text) {
            for other in imported(line).into_iter().filter(|o| *o != room && !may.contains(&o.as_str())) {
                breaches.push(format!("{}:{n}: {room} may not import {other}", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_reader_of_imports_reads_them() {
    assert_eq!(imported("use crate::model::{Task, link};"), ["model"]);
    assert_eq!(imported("use crate::{export, observe, schedule};"), ["export", "observe", "schedule"]);
    assert_eq!(imported("use crate::{export::{a, b}, observe};"), ["export", "observe"]);
    assert_eq!(imported("    let x = crate::ids::IdSource::random();"), ["ids"]);
}

/// What would make a pure function's answer depend on more than its arguments, and what belongs behind a seam.
#[test]
fn crates_stay_in_their_rooms() {
    let banned: &[(&str, &[&str])] = &[
        (
            "decide",
            &[
                "tokio",
                "tracing::",
                "rand::",
                "std::time",
                "Instant",
                "SystemTime",
                "HashMap",
                "HashSet",
                "async fn",
                "jiff::Timestamp::now",
                "std::fs",
                "std::env",
            ],
        ),
        ("model", &["tokio", "tracing::", "rand::", "HashMap", "async fn", "jiff::Timestamp::now", "bollard", "rusqlite"]),
        ("store", &["bollard", "warp::", "hyper"]),
        ("control", &["bollard", "warp::", "rusqlite", "hyper"]),
        ("api", &["bollard", "warp::", "rusqlite", "hyper::"]),
        ("telemetry", &["bollard", "warp::", "hyper"]),
        ("wire", &["bollard", "warp::", "hyper", "rusqlite"]),
    ];
    let mut breaches = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let room = room(&path);
        let inside_docker = path.starts_with("agent/docker");
        for (n, line) in code(&text) {
            let words = banned.iter().filter(|(name, _)| *name == room).flat_map(|(_, words)| words.iter());
            for word in words.filter(|word| holds(line, word)) {
                breaches.push(format!("{}:{n}: {room} may not use {word}", path.display()));
            }
            if line.contains("bollard") && !inside_docker {
                breaches.push(format!("{}:{n}: bollard only in agent/docker", path.display()));
            }
            if line.contains("warp::") && room != "http" {
                breaches.push(format!("{}:{n}: warp only in http", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// serde's flatten, untagged and tag buffer their input and lose the types that forms and CBOR are read by.
#[test]
fn shapes_are_plain() {
    let mut breaches = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| room(path) == "api" && !path.starts_with("api/native")) {
        for (n, line) in code(&text).filter(|(_, line)| line.contains("serde(")) {
            for word in ["flatten", "untagged", "tag ="].iter().filter(|w| line.contains(**w)) {
                breaches.push(format!("{}:{n}: serde's {word} in a shape", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn files_stay_small_and_say_what_they_own() {
    const MOST_LINES: usize = 620;
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MOST_LINES && !is_test(&path) {
            breaches.push(format!("{}: {lines} lines; a room that wants a wall", path.display()));
        }
        if !text.starts_with("//!") && !is_test(&path) {
            breaches.push(format!("{}: its first line does not say what it owns", path.display()));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn nothing_is_left_to_do() {
    let mut breaches = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        for (n, line) in code(&text) {
            for word in ["todo!(", "unimplemented!(", "dbg!("].iter().filter(|w| line.contains(**w)) {
                breaches.push(format!("{}:{n}: {word}", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}
