//! What is on disk: read again whole, refused when it is not, copied, put back, and played again from its journal.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::Connection;

use super::super::journal::Journal;
use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let dir = std::env::temp_dir().join(format!("beaufort-durable-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
    fn open(&self) -> Result<Store, Error> {
        Store::open(Some(&self.0), clock(), "me")
    }
    fn file(&self) -> PathBuf {
        self.0.join("state.sqlite")
    }
    fn sql(&self, sql: &str) {
        Connection::open(self.file()).unwrap().execute_batch(sql).unwrap();
    }
    /// As it is while a server works there: what a kill -9 leaves.
    fn copied(&self) -> Dir {
        let copy = Dir::new();
        for name in ["state.sqlite", "state.sqlite-wal", "acknowledged"] {
            fs::copy(self.0.join(name), copy.0.join(name)).unwrap();
        }
        copy
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refused(opened: Result<Store, Error>) -> Error {
    opened.err().expect("such a directory is not opened")
}

fn same(a: &State, b: &State) {
    assert_eq!((&a.clusters, &a.definitions, &a.services), (&b.clusters, &b.definitions, &b.services));
    assert_eq!((&a.tasks, &a.instances, &a.alarms), (&b.tasks, &b.instances, &b.alarms));
    assert_eq!((&a.targets, &a.policies, &a.activities), (&b.targets, &b.policies, &b.activities));
    assert_eq!(a.revision, b.revision);
    for task in b.tasks.values() {
        let service = task.service_key().unwrap();
        assert_eq!(a.counts(&service), b.counts(&service));
        assert_eq!(a.tasks_of_service(&service).collect::<Vec<_>>(), b.tasks_of_service(&service).collect::<Vec<_>>());
        assert_eq!(
            (a.load(&task.instance), a.cluster_counts(&task.cluster)),
            (b.load(&task.instance), b.cluster_counts(&task.cluster))
        );
    }
    let old = |s: &State| s.stopped_before(Timestamp(i64::MAX)).cloned().collect::<Vec<_>>();
    assert_eq!(old(a), old(b));
}

#[tokio::test]
async fn a_directory_of_version_1_is_read_and_rewritten() {
    let dir = Dir::new();
    fs::write(dir.file(), include_bytes!("../../../tests/fixtures/state-1.sqlite")).unwrap();
    let before = Journal::open(&dir.0).unwrap().state().unwrap();
    for _ in 0..2 {
        let store = dir.open().unwrap();
        assert_eq!(store.installation(), "0527f5ba63fdd6fba94bc5af66badd86");
        let state = store.snapshot();
        assert_eq!((state.tasks.len(), state.services.len(), state.alarms.len(), state.policies.len()), (4, 2, 2, 1));
        let web2 = ServiceKey::new("default", "web2");
        let running: Vec<_> = state.live_tasks_of_service(&web2).collect();
        assert_eq!((running.len(), running[0].containers[0].bindings[0].host_port, running[0].version), (1, 32_774, 5));
        assert_eq!(running[0].containers[0].runtime_id.as_ref().unwrap().to_string().len(), 64);
        let asked = &state.tasks[&TaskId::new("93a68ca9945fba8b425dfafd74eed52b")];
        assert_eq!((asked.started_by.as_deref(), asked.overrides.container_overrides.len()), (Some("me"), 1));
        assert_eq!(asked.stop_code.map(|c| c.as_str()), Some("UserInitiated"));
        assert_eq!(state.tasks, before.tasks);
        assert_eq!(store.records(RecordQuery::decisions()).await.unwrap().len(), 8);
        store.close().await;
        let report = examine(&dir.0).unwrap();
        assert!(report.is_whole(), "{report:?}");
        assert_eq!((report.revision, report.commits, report.counts["task"]), (state.revision, 12, 4));
    }
}

#[tokio::test]
async fn a_row_that_changed_or_is_gone_is_not_taken_for_the_state() {
    for (damage, told) in [
        ("UPDATE rows SET row = replace(row, 'RUNNING', 'STOPPED') WHERE key = '\"1\"'", "checksum differs"),
        ("UPDATE rows SET kind = 'volume' WHERE key = '\"1\"'", "checksum differs"),
        ("DELETE FROM rows WHERE key = '\"1\"'", "has 1 rows where commit 2 left 2"),
        ("INSERT INTO rows SELECT kind, '\"2\"', row, sum FROM rows WHERE key = '\"1\"'", "checksum differs"),
    ] {
        let dir = Dir::new();
        let store = dir.open().unwrap();
        put(&store, cluster("c")).await;
        put(&store, task("1", "web", "i", TaskStatus::Running)).await;
        store.close().await;
        assert!(examine(&dir.0).unwrap().is_whole());
        dir.sql(damage);
        let error = refused(dir.open());
        assert!(matches!(&error, Error::Damaged(text) if text.contains(told)), "{damage}: {error}");
        assert!(error.to_string().contains("beaufort restore"));
        let report = examine(&dir.0).unwrap();
        assert!(!report.state_faults.is_empty() && report.history_faults.is_empty(), "{report:?}");
    }
}

#[tokio::test]
async fn a_cut_log_that_lost_what_was_acknowledged_is_told_and_a_torn_end_is_not() {
    let dir = Dir::new();
    let store = dir.open().unwrap();
    for n in 0..20 {
        put(&store, task(&n.to_string(), "web", "i", TaskStatus::Running)).await;
    }
    let (whole, torn, cut) = (dir.copied(), dir.copied(), dir.copied());
    store.close().await;
    let wal = |dir: &Dir| dir.0.join("state.sqlite-wal");
    let length = fs::metadata(wal(&cut)).unwrap().len();
    fs::OpenOptions::new().write(true).open(wal(&cut)).unwrap().set_len(length - 5_000).unwrap();
    let error = refused(cut.open());
    assert!(matches!(error, Error::Lost { found, acknowledged: 20 } if found < 20), "{error}");
    assert!(error.to_string().contains("remove the file `acknowledged`"), "{error}");
    assert!(!examine(&cut.0).unwrap().state_faults.is_empty());
    fs::remove_file(cut.0.join("acknowledged")).unwrap();
    cut.open().unwrap().close().await;

    let mut bytes = fs::read(wal(&torn)).unwrap();
    bytes.extend([7; 3_000]);
    fs::write(wal(&torn), bytes).unwrap();
    for dir in [&whole, &torn] {
        let store = dir.open().unwrap();
        assert_eq!((store.snapshot().revision, store.snapshot().tasks.len()), (20, 20));
        store.close().await;
    }
}

#[tokio::test]
async fn a_page_that_rotted_is_found_whatever_it_holds() {
    let dir = Dir::new();
    let store = dir.open().unwrap();
    for n in 0..200 {
        put(&store, task(&format!("{n:04}"), "web", "i", TaskStatus::Running)).await;
    }
    store.close().await;
    let whole = fs::read(dir.file()).unwrap();
    let mut found = 0;
    for page in (1..whole.len() / 4_096).step_by(5) {
        let mut rotten = whole.clone();
        rotten[page * 4_096 + 1_000..page * 4_096 + 1_400].fill(0xA5);
        fs::write(dir.file(), &rotten).unwrap();
        // Never a panic, and never a state that differs.
        let sentence = match examine(&dir.0) {
            Ok(report) => report.state_faults.into_iter().chain(report.history_faults).next(),
            Err(error) => Some(error.to_string()),
        };
        found += usize::from(sentence.is_some());
        if let Ok(store) = dir.open() {
            assert_eq!(store.snapshot().tasks.len(), 200, "page {page}");
            store.close().await;
        }
        let _ = fs::remove_file(dir.0.join("state.sqlite-wal"));
    }
    assert!(found > 5, "only unused parts of pages may rot unseen: {found}");
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_taken_at_work_is_restored_whole_and_nothing_is_replaced_by_accident() {
    let (dir, empty, other) = (Dir::new(), Dir::new(), Dir::new());
    let store = dir.open().unwrap();
    put(&store, cluster("c")).await;
    put(&store, task("1", "web", "i", TaskStatus::Running)).await;
    let (file, manifest) = store.backup(Timestamp(9)).unwrap().unwrap();
    put(&store, task("2", "web", "i", TaskStatus::Running)).await;
    assert_eq!((manifest.revision, manifest.counts["task"], manifest.installation.as_str()), (2, 1, "me"));
    let backup = other.0.join("backup");
    fs::copy(&file, &backup).unwrap();
    assert_eq!(examine(&backup).unwrap().backup, Some(manifest));

    assert!(matches!(restore(&backup, &dir.0, true, Timestamp(10)), Err(Error::InUse(_))));
    store.close().await;
    let before = entries(&dir.0);
    assert!(matches!(restore(&backup, &dir.0, false, Timestamp(10)), Err(Error::NotEmpty(_))));
    let mut bad = fs::read(&backup).unwrap();
    let at = bad.windows(7).position(|w| w == b"RUNNING").unwrap();
    bad[at] = b'X';
    fs::write(other.0.join("bad"), bad).unwrap();
    for wrong in ["bad", "none"] {
        assert!(restore(&other.0.join(wrong), &dir.0, true, Timestamp(10)).is_err());
    }
    assert_eq!(entries(&dir.0), before, "a refused restore leaves nothing behind");
    assert_eq!(dir.open().unwrap().snapshot().tasks.len(), 2);

    let restored = loop {
        // The store that was looked into above ends with its writer's thread.
        match restore(&backup, &dir.0, true, Timestamp(10)) {
            Err(Error::InUse(_)) => tokio::task::yield_now().await,
            done => break done.unwrap(),
        }
    };
    assert!(restored.kept.as_ref().unwrap().join("state.sqlite").is_file());
    restore(&backup, &empty.0, false, Timestamp(10)).unwrap();
    for dir in [&dir, &empty] {
        let store = dir.open().unwrap();
        assert_eq!((store.snapshot().revision, store.snapshot().tasks.len(), store.installation()), (2, 1, "me"));
        put(&store, task("3", "web", "i", TaskStatus::Running)).await;
        store.close().await;
        assert!(examine(&dir.0).unwrap().is_whole());
    }
    fs::write(dir.0.join("restore-in-progress"), "").unwrap();
    assert!(refused(dir.open()).to_string().contains("--replace"));
}

#[derive(Clone, Debug)]
enum Step {
    Put { id: u8, service: u8, status: u8 },
    Forget(u8),
    Cluster(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0..12u8, 0..3u8, 0..3u8).prop_map(|(id, service, status)| Step::Put { id, service, status });
    prop::collection::vec(
        prop_oneof![6 => put, 2 => (0..12u8).prop_map(Step::Forget), 1 => (0..3u8).prop_map(Step::Cluster)],
        2..60,
    )
}

async fn take(store: &Store, step: &Step) {
    match *step {
        Step::Put { id, service, status } => {
            let status = [TaskStatus::Pending, TaskStatus::Running, TaskStatus::Stopped][usize::from(status)];
            let mut task = task(&id.to_string(), &format!("s{service}"), &format!("i{}", id % 2), status);
            // No two tasks of an instance are ever given the same port.
            task.reserved.tcp_ports = vec![8_000 + u16::from(id)];
            put(store, task).await;
        }
        Step::Forget(id) => put(store, Change::Task(TaskId::new(id.to_string()), None)).await,
        Step::Cluster(n) => put(store, cluster(&n.to_string())).await,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_journal_played_from_nothing_and_from_a_backup_is_the_live_state(steps in steps(), at in 0..60usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (dir, other) = (Dir::new(), Dir::new());
            let store = dir.open().unwrap();
            let at = at % steps.len();
            for step in &steps[..at] {
                take(&store, step).await;
            }
            let (file, _) = store.backup(Timestamp(1)).unwrap().unwrap();
            fs::copy(&file, other.0.join("backup")).unwrap();
            for step in &steps[at..] {
                take(&store, step).await;
            }
            let live = store.snapshot();
            let journal = Journal::open(&dir.0).unwrap();
            let start = Journal::open(&other.0.join("backup")).unwrap().state().unwrap();
            for mut state in [State::default(), start] {
                for commit in journal.commits(state.revision + 1) {
                    let commit = commit.unwrap();
                    assert_eq!(commit.revision, state.revision + 1);
                    commit.changes.iter().for_each(|change| state.apply(change, commit.revision));
                }
                same(&state, &live);
            }
            store.close().await;
            let again = dir.open().unwrap();
            same(&again.snapshot(), &live);
            again.close().await;
        });
    }
}
