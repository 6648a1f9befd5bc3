//! Known stories: scripts, and what is decided in them, when and in which words. `SIM_GOLDEN=write` writes the texts anew; the diff
//! of them is what a change of the decisions means.

use std::fs;
use std::path::Path;

use beaufort::sim::transcript::transcript;

use super::*;

#[test]
fn known_stories_go_as_they_went() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/golden");
    let mut stories: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.retain(|path| path.extension().is_some_and(|extension| extension == "script"));
    stories.sort();
    assert!(stories.len() >= 6, "{stories:?}");
    let mut other = Vec::new();
    for path in stories {
        let script = Script::parse(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{}: {e:#}", path.display()));
        let report = many::run_one(&script, true);
        assert_eq!(report.breaches, [], "{}", path.display());
        let (text, golden) = (transcript(&report.ledger, &report.hosts), path.with_extension("txt"));
        if std::env::var("SIM_GOLDEN").as_deref() == Ok("write") {
            fs::write(&golden, &text).unwrap();
        }
        let known = fs::read_to_string(&golden).unwrap_or_default();
        if let Some((n, (is, was))) = text.lines().zip(known.lines()).enumerate().find(|(_, (is, was))| is != was) {
            other.push(format!("{}, line {}:\n  was {was}\n  is  {is}", golden.display(), n + 1));
        } else if text.lines().count() != known.lines().count() {
            other.push(format!("{}: {} lines, was {}", golden.display(), text.lines().count(), known.lines().count()));
        }
    }
    assert!(
        other.is_empty(),
        "{}\nIf that is meant: SIM_GOLDEN=write cargo test --test simulation known_stories",
        other.join("\n")
    );
}
