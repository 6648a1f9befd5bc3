//! What README.md says of the code, compared with the code: the operations, the fields without effect, the environment variables,
//! and that every file it points to is there. Reads text only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A row of README's table, and the source that holds its operations.
const SERVICES: &[(&str, &str)] = &[
    ("Amazon ECS", "src/api/ecs/mod.rs"),
    ("CloudWatch", "src/api/cloudwatch/mod.rs"),
    ("CloudWatch Logs", "src/api/logs/mod.rs"),
    ("Application Auto Scaling", "src/api/autoscaling/mod.rs"),
    ("STS", "src/api/sts.rs"),
    ("Observability Access Manager", "src/api/oam.rs"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What stands between `<!-- name: begin -->` and `<!-- name: end -->`.
fn section(text: &str, name: &str) -> String {
    let begin = format!("<!-- {name}: begin -->");
    let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("README.md has no {begin}"));
    let (inside, _) = rest.split_once(&format!("<!-- {name}: end -->")).unwrap_or_else(|| panic!("{begin} has no end"));
    inside.to_owned()
}

/// The rows of a table of two columns, without its head.
fn rows(table: &str) -> BTreeMap<String, String> {
    let cells = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        Some((cells.next()?, cells.next()?))
    };
    table.lines().filter(|line| line.starts_with('|')).skip(2).filter_map(cells).collect()
}

/// The words in `backticks`.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The text in "double quotes", in order; the sources that are read so escape none.
fn strings(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn operations(source: &str) -> BTreeSet<String> {
    let calls = [".op(\"", ".rest(\""].into_iter().flat_map(|call| source.match_indices(call));
    calls.filter_map(|(at, call)| source[at + call.len()..].split('"').next()).map(str::to_owned).collect()
}

#[test]
fn the_operations_are_those_of_the_code() {
    let table = rows(&section(&read("README.md"), "operations"));
    let names: Vec<&str> = table.keys().map(String::as_str).collect();
    let mut served: Vec<&str> = SERVICES.iter().map(|(name, _)| *name).collect();
    served.sort_unstable();
    assert_eq!(names, served, "the services of README's table");
    for (name, path) in SERVICES {
        let (said, served) = (quoted(&table[*name]), operations(&read(path)));
        assert!(!served.is_empty(), "{path} has no operations: this test reads it wrongly");
        let missing: Vec<_> = served.difference(&said).collect();
        let invented: Vec<_> = said.difference(&served).collect();
        assert!(missing.is_empty() && invented.is_empty(), "{name}: not in README: {missing:?}; not in the code: {invented:?}");
    }
}

#[test]
fn every_service_has_its_row() {
    let list = read("src/api/mod.rs");
    let (_, list) = list.split_once("vec![").expect("api::services lists them");
    let served = list.split(']').next().unwrap_or_default().matches("::service()").count();
    assert_eq!(served, SERVICES.len(), "api::services and this test's list");
}

#[test]
fn the_fields_without_effect_are_those_of_the_code() {
    let source = read("src/api/gaps.rs");
    let (_, known) = source.split_once("pub const KNOWN").expect("gaps.rs has KNOWN");
    let known = strings(known.split("\n];").next().unwrap_or_default());
    let code: BTreeMap<String, String> = known.chunks(2).map(|pair| (format!("`{}`", pair[0]), pair[1].clone())).collect();
    assert!(code.len() > 20, "this test reads gaps.rs wrongly");
    assert_eq!(rows(&section(&read("README.md"), "gaps")), code);
}

/// The variables that the command line and our telemetry read.
#[test]
fn every_environment_variable_is_told() {
    let mut variables = BTreeSet::new();
    for path in sources(&["src/cli", "src/observe"]) {
        let text = fs::read_to_string(path).unwrap();
        for (at, _) in text.match_indices("\"BEAUFORT_") {
            let name = text[at + 1..].split('"').next().unwrap_or_default();
            if name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
                variables.insert(name.to_owned());
            }
        }
    }
    assert!(variables.len() > 10, "this test reads the sources wrongly");
    let told = quoted(&read("README.md"));
    let untold: Vec<_> = variables.difference(&told).collect();
    assert!(untold.is_empty(), "not in README.md: {untold:?}");
}

#[test]
fn links_lead_somewhere() {
    let pages =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/operations.md", "docs/performance.md"];
    for page in pages {
        let text = read(page);
        let folder = Path::new(page).parent().unwrap_or(Path::new(""));
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                assert!(root().join(folder).join(target).exists(), "{page} points to {target}, which is not there");
            }
        }
    }
}

fn sources(folders: &[&str]) -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = folders.iter().map(|f| root().join(f)).collect();
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn the_page_on_performance_tells_of_every_figure() {
    let between = |text: &str, begin: &str, end: &str| {
        let inside = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).unwrap_or_else(|| panic!("no {begin}"));
        inside.0.to_owned()
    };
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let parts = between(&read("src/bench.rs"), "const PARTS: &[Part] = &[", "];");
    let figures = between(&read("tests/bench/figures.py"), "FIGURES = {", "}");
    let known: BTreeSet<String> = parts.lines().chain(figures.lines()).filter_map(quoted).collect();
    assert!(known.len() > 10, "{known:?}");
    let page = read("docs/performance.md");
    let untold: Vec<_> = known.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(untold.is_empty(), "docs/performance.md has no row for {untold:?}");
    for mark in ["<!-- figures: begin -->", "<!-- figures: end -->"] {
        assert_eq!(page.matches(mark).count(), 1, "tests/bench/doc.py looks for {mark}");
    }
}
