//! Directories of other versions: an older one is read and taken over, a newer one is refused and left alone.

use super::*;

/// Written by 0.1.0: ninety seconds of a gauge, a list of values, a set, and a minute of forty values.
const OLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics-format-1");
const THEN: Timestamp = Timestamp(1_795_199_880_000);

fn old() -> TempDir {
    let dir = TempDir::new();
    std::fs::create_dir_all(&dir.0).unwrap();
    for entry in std::fs::read_dir(OLD).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.0.join(entry.file_name())).unwrap();
    }
    dir
}

fn ask(store: &MetricStore, name: &str, statistic: Statistic, period_ms: i64) -> Vec<f64> {
    let key = MetricKey::new("Fixture", name, []);
    let query = Query { key, statistic, unit: None, start: THEN, end: THEN + HOUR, period_ms };
    store.query(&query).into_iter().map(|point| point.value).collect()
}

fn check(store: &MetricStore) {
    let gauge: Vec<f64> = (0..90).map(|second| 50.0 + f64::from(second % 7) / 10.0).collect();
    assert_eq!(ask(store, "gauge", Statistic::Average, 1_000), gauge);
    assert_eq!(ask(store, "gauge", Statistic::Maximum, MINUTE), [50.6, 50.6]);
    assert_eq!(ask(store, "values", Statistic::Sum, 1_000), [1.5 + 2.0 * 2.5 + 3.0 * 0.1]);
    assert_eq!(ask(store, "values", Statistic::Percentile(50.0), 1_000), [0.1]);
    assert_eq!(ask(store, "set", Statistic::Average, 1_000), [2.5]);
    assert_eq!(ask(store, "sketch", Statistic::SampleCount, MINUTE), [40.0]);
    let median = ask(store, "sketch", Statistic::Percentile(50.0), MINUTE)[0];
    assert!((median / 19.25 - 1.0).abs() < 0.011, "{median}");
}

#[test]
fn parts_of_the_first_format_are_read_beside_new_ones() {
    let dir = old();
    let clock = ManualClock::at(THEN + 10 * MINUTE);
    let store = open(Some(&dir.0), &clock);
    check(&store);
    store.put(&[datum("new", THEN, 7.0)]);
    store.close();
    drop(store);
    let store = open(Some(&dir.0), &clock);
    check(&store);
    assert_eq!(values(&store, &query("new", Statistic::Sum, THEN, THEN + MINUTE, 1_000)).len(), 1);
    assert_eq!((store.stats().damaged_parts, store.stats().damaged_chunks), (0, 0));
}

#[test]
fn a_newer_directory_is_refused_and_left_alone() {
    let dir = old();
    let manifest = dir.0.join("manifest.json");
    let newer = std::fs::read_to_string(&manifest).unwrap().replace("\"version\": 1", "\"version\": 77");
    std::fs::write(&manifest, &newer).unwrap();
    let files = || {
        std::fs::read_dir(&dir.0)
            .unwrap()
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let clock = ManualClock::at(THEN);
    let error = MetricStore::open(Some(&dir.0), clock as SharedClock, Limits::default()).err().expect("refused").to_string();
    assert!(error.contains("77") && error.contains("newer"), "{error}");
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), newer);
    let mut left = files();
    left.remove("lock");
    assert_eq!(left.len(), 5, "{left:?}");
}
