//! A reader of what a store has written: the commits, the ledger and the state as of a commit, of a data directory (also while its
//! server runs) or of a backup's file. Never writes and never takes the server's lock.
//!
//! Everything is read page by page, each page in a short transaction of its own: a reader that stayed in one would keep SQLite from
//! folding its write-ahead log back into the file for as long.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params, params_from_iter};

use super::encode::{self, address};
use super::schema::SCHEMA;
use super::{Change, Commit, Error, Record, RecordKind, State, load};
use crate::model::Timestamp;
use crate::model::alarm::Alarm;

/// Rows of one page: commits may be large, records are small.
const COMMITS: i64 = 64;
const RECORDS: i64 = 512;
/// What would end a path in a URI, or begin an escape.
const IN_URI: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');

pub struct Journal {
    connection: Connection,
    installation: String,
    path: PathBuf,
    /// There was no write-ahead log, so nobody was writing: the file is read as one that does not change.
    still: bool,
}

/// The commits that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub first: u64,
    pub first_at: Timestamp,
    pub last: u64,
    pub last_at: Timestamp,
}

/// The state as of a commit, as far as it is known.
#[derive(Debug)]
pub struct Past {
    pub state: State,
    /// Rows that are older than the journal, and that it first shows after this commit: how they were then nobody has written down.
    pub unknown: usize,
}

/// Which records to read, oldest first; every filter that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub kind: Option<RecordKind>,
    /// `CLUSTER/NAME`.
    pub service: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Only records after this number.
    pub after: u64,
}

impl Journal {
    /// `path` is a data directory, or a file that holds a state.
    pub fn open(path: &Path) -> Result<Journal, Error> {
        let file = if path.is_dir() { path.join("state.sqlite") } else { path.to_owned() };
        let cannot = |what: &str| Error::Database(format!("cannot be read: {}: {what}", file.display()));
        let absolute = file.canonicalize().map_err(|e| cannot(&e.to_string()))?;
        // A running server has its log beside the file from its start to its end. Then we are one more reader of SQLite's: its
        // index of the log (-shm) may be brought up to date by us, the data may not. Else not a byte is touched, not even that.
        let still = !log_of(&absolute).exists();
        let uri = format!(
            "file:{}?mode=ro{}",
            utf8_percent_encode(&absolute.to_string_lossy(), IN_URI),
            if still { "&immutable=1" } else { "" }
        );
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(uri, flags)?;
        let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > SCHEMA {
            return Err(Error::Newer { found, known: SCHEMA });
        }
        let ours = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('meta', 'journal', 'rows', 'records')";
        if found == 0 || connection.query_row(ours, [], |row| row.get::<_, i64>(0))? != 4 {
            return Err(cannot("it holds no state of Beaufort's; name a data directory, or a backup's file"));
        }
        let installation = connection.query_row("SELECT value FROM meta WHERE name = 'installation'", [], |row| row.get(0))?;
        Ok(Journal { connection, installation, path: absolute, still })
    }

    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// None: there has been no commit.
    pub fn extent(&self) -> Result<Option<Extent>, Error> {
        let end = |order: &str| -> Result<Option<(u64, i64)>, Error> {
            let sql = format!("SELECT revision, at FROM journal ORDER BY revision {order} LIMIT 1");
            Ok(self.connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        };
        let extent = end("ASC")?.zip(end("DESC")?).map(|((first, first_at), (last, last_at))| Extent {
            first,
            first_at: Timestamp(first_at),
            last,
            last_at: Timestamp(last_at),
        });
        self.unmoved()?;
        Ok(extent)
    }

    /// The first commit at this moment or later.
    pub fn revision_at(&self, at: Timestamp) -> Result<Option<u64>, Error> {
        let sql = "SELECT revision FROM journal WHERE at >= ?1 ORDER BY revision LIMIT 1";
        Ok(self.connection.query_row(sql, [at.0], |row| row.get(0)).optional()?)
    }

    /// Commits in order, from this revision on. They come without their records, which have numbers of their own.
    pub fn commits(&self, from: u64) -> impl Iterator<Item = Result<Commit, Error>> + '_ {
        Pages {
            journal: self,
            page: VecDeque::new(),
            next: from,
            read: Journal::commits_page,
            number: |commit: &Commit| commit.revision,
        }
    }

    /// Records in order, with their numbers.
    pub fn records(&self, wanted: Wanted) -> impl Iterator<Item = Result<(u64, Record), Error>> + '_ {
        let next = wanted.after + 1;
        let read = move |journal: &Journal, from: u64| journal.records_page(&wanted, from);
        Pages { journal: self, page: VecDeque::new(), next, read, number: |(number, _): &(u64, Record)| *number }
    }

    fn commits_page(&self, from: u64) -> Result<VecDeque<Commit>, Error> {
        let sql = "SELECT revision, at, causes, changes FROM journal WHERE revision >= ?1 ORDER BY revision LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![from as i64, COMMITS])?;
        let mut page = VecDeque::new();
        while let Some(row) = rows.next()? {
            page.push_back(Commit {
                revision: row.get(0)?,
                at: Timestamp(row.get(1)?),
                causes: encode::decode_causes(row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?)?,
                changes: encode::decode_changes(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?,
                records: Vec::new(),
            });
        }
        Ok(page)
    }

    fn records_page(&self, wanted: &Wanted, from: u64) -> Result<VecDeque<(u64, Record)>, Error> {
        let mut sql = String::from("SELECT seq, body FROM records WHERE seq >= ?");
        let mut values: Vec<Value> = vec![(from as i64).into()];
        let mut filter = |clause: &str, value: Option<Value>| {
            if let Some(value) = value {
                sql.push_str(clause);
                values.push(value);
            }
        };
        filter(" AND kind = ?", wanted.kind.map(|kind| encode::record_kind(kind).into()));
        filter(" AND service = ?", wanted.service.clone().map(Into::into));
        filter(" AND at >= ?", wanted.since.map(|t| t.0.into()));
        filter(" AND at <= ?", wanted.until.map(|t| t.0.into()));
        sql.push_str(" ORDER BY seq LIMIT ?");
        values.push(RECORDS.into());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut page = VecDeque::new();
        while let Some(row) = rows.next()? {
            page.push_back((row.get(0)?, encode::decode_record(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?));
        }
        Ok(page)
    }

    /// The state as it is now.
    pub fn state(&self) -> Result<State, Error> {
        Ok(self.state_at(u64::MAX)?.state)
    }

    /// The state as of a commit, from the rows as they are and the journal: a row that the journal shows at or before this commit
    /// is as the last of these changes left it, one that it never shows is as it always was, and one that it first shows later
    /// was made later, or is unknown.
    pub fn state_at(&self, revision: u64) -> Result<Past, Error> {
        // Rows and journal must be of one moment.
        let moment = self.connection.unchecked_transaction()?;
        let extent = self.extent()?;
        let first = extent.map_or((0, Timestamp::ZERO), |e| (e.first, e.first_at));
        let (mut state, mut shown, mut later, mut unknown) = (State::default(), BTreeSet::new(), BTreeSet::new(), 0);
        let as_of = revision.min(extent.map_or(0, |e| e.last));
        for commit in self.commits(0) {
            let commit = commit?;
            for change in &commit.changes {
                let known = address(change)?;
                if commit.revision <= revision {
                    state.apply(change, commit.revision);
                    shown.insert(known);
                } else if !shown.contains(&known) && later.insert(known) {
                    let older = first.0 > 1 && made_at(change).is_none_or(|made| made < first.1);
                    unknown += usize::from(older);
                }
            }
        }
        load::each_change(&self.connection, |change| {
            let known = address(&change)?;
            if !shown.contains(&known) && !later.contains(&known) {
                state.apply(&change, as_of);
            }
            Ok(())
        })?;
        moment.finish()?;
        self.unmoved()?;
        state.revision = as_of;
        Ok(Past { state, unknown })
    }

    /// From which commit on the whole state is known. None: there has been no commit.
    pub fn known_from(&self) -> Result<Option<u64>, Error> {
        let Some(extent) = self.extent()? else { return Ok(None) };
        if extent.first <= 1 {
            return Ok(Some(extent.first));
        }
        let (mut seen, mut from) = (BTreeSet::new(), extent.first);
        for commit in self.commits(0) {
            let commit = commit?;
            for change in &commit.changes {
                if seen.insert(address(change)?) && made_at(change).is_none_or(|made| made < extent.first_at) {
                    from = commit.revision;
                }
            }
        }
        Ok(Some(from))
    }

    /// A file that was read as one that does not change must not have been opened by a server meanwhile.
    fn unmoved(&self) -> Result<(), Error> {
        if self.still && log_of(&self.path).exists() {
            let path = self.path.display();
            return Err(Error::Database(format!("{path} was opened by a server while it was read: read it again")));
        }
        Ok(())
    }
}

/// SQLite's write-ahead log of a file.
fn log_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// When the row was made, as far as it says so itself.
fn made_at(change: &Change) -> Option<Timestamp> {
    // A new alarm has had no state but its first; a configuration that is changed keeps the state's times.
    let fresh = |alarm: &Alarm| alarm.state_updated_at == alarm.configuration_updated_at;
    match change {
        Change::Cluster(_, row) => row.as_ref().map(|row| row.created_at),
        Change::Definition(_, row) => row.as_ref().map(|row| row.registered_at),
        Change::Service(_, row) => row.as_ref().map(|row| row.created_at),
        Change::Task(_, row) => row.as_ref().map(|row| row.created_at),
        Change::Instance(_, row) => row.as_ref().map(|row| row.registered_at),
        Change::Alarm(_, row) => row.as_ref().filter(|row| fresh(row)).map(|row| row.configuration_updated_at),
        Change::Target(_, row) => row.as_ref().map(|row| row.created_at),
        Change::Policy(_, row) => row.as_ref().map(|row| row.created_at),
        Change::Activity(_, row) => row.as_ref().map(|row| row.started_at),
    }
}

struct Pages<'a, T, R> {
    journal: &'a Journal,
    page: VecDeque<T>,
    next: u64,
    read: R,
    number: fn(&T) -> u64,
}

impl<T, R: Fn(&Journal, u64) -> Result<VecDeque<T>, Error>> Iterator for Pages<'_, T, R> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && self.next < u64::MAX {
            match (self.read)(self.journal, self.next.min(i64::MAX as u64)).and_then(|page| self.journal.unmoved().map(|()| page))
            {
                Ok(page) => self.page = page,
                Err(error) => {
                    self.next = u64::MAX;
                    return Some(Err(error));
                }
            }
        }
        let item = self.page.pop_front();
        self.next = item.as_ref().map_or(u64::MAX, |item| (self.number)(item) + 1);
        item.map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, put, task};
    use super::super::{RecordQuery, Store};
    use super::*;
    use crate::clock::ManualClock;
    use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
    use crate::model::task::TaskStatus;
    use crate::model::{ServiceKey, TaskId};
    use std::fs;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("beaufort-journal-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Dir(dir)
        }
        fn copied(&self, name: &str) -> Dir {
            let copy = Dir::new(name);
            fs::create_dir_all(&copy.0).unwrap();
            for file in ["state.sqlite", "state.sqlite-wal"].iter().filter(|f| self.0.join(f).exists()) {
                fs::copy(self.0.join(file), copy.0.join(file)).unwrap();
            }
            copy
        }
        fn bytes(&self) -> Vec<(String, Vec<u8>)> {
            let files = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().path());
            let mut files: Vec<_> = files.map(|p| (p.display().to_string(), fs::read(p).unwrap())).collect();
            files.sort();
            files.retain(|(name, _)| !name.ends_with("-shm"));
            files
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn decision(at: i64, service: &str) -> Decision {
        Decision {
            at: Timestamp(at),
            subject: Subject::Service(ServiceKey::new("c", service)),
            action: format!("at {at}"),
            reason: Reason::new(ReasonCode::BelowDesired, "why"),
            trace: None,
        }
    }

    async fn decide(store: &Store, decision: Decision) {
        let update = move |tx: &mut super::super::Tx| {
            tx.decide(decision);
            Ok::<_, Error>(())
        };
        store.update("test", update).await.unwrap();
    }

    /// Tasks that come, run and go, and a cluster that never changes after its first commit.
    async fn history(store: &Store, tasks: usize) {
        put(store, cluster("c")).await;
        for n in 0..tasks {
            let id = format!("{n:04}");
            put(store, task(&id, "web", "i", TaskStatus::Pending)).await;
            put(store, task(&id, "web", "i", TaskStatus::Running)).await;
            if n % 3 == 0 {
                put(store, Change::Task(TaskId::new(&id), None)).await;
            }
            decide(store, decision(1_000 + n as i64, if n % 2 == 0 { "web" } else { "api" })).await;
        }
    }

    #[tokio::test]
    async fn read_while_the_server_runs_after_it_was_killed_and_after_it_has_ended() {
        let dir = Dir::new("three");
        let store = Store::open(Some(&dir.0), ManualClock::at(Timestamp(1_000)), "me").unwrap();
        history(&store, 100).await;
        let (live, killed) = (Journal::open(&dir.0).unwrap(), dir.copied("killed"));
        let before = killed.bytes();
        let after_kill = Journal::open(&killed.0.join("state.sqlite")).unwrap();
        for journal in [&live, &after_kill] {
            assert_eq!(journal.installation(), "me");
            let commits: Vec<Commit> = journal.commits(0).collect::<Result<_, _>>().unwrap();
            assert_eq!(commits.iter().map(|c| c.revision).collect::<Vec<_>>(), (1..=commits.len() as u64).collect::<Vec<_>>());
            assert!(commits.len() > 3 * COMMITS as usize, "more than a few pages: {}", commits.len());
            assert_eq!(journal.extent().unwrap().map(|e| (e.first, e.last)), Some((1, commits.len() as u64)));
            assert_eq!(journal.commits(7).next().unwrap().unwrap().revision, 7);
            assert_eq!(journal.known_from().unwrap(), Some(1));
            assert_eq!(journal.state().unwrap().tasks, store.snapshot().tasks);
        }
        drop(after_kill);
        assert_eq!(killed.bytes(), before, "a byte was written");
        put(&store, task("late", "web", "i", TaskStatus::Running)).await;
        assert_eq!(live.state().unwrap().tasks.len(), store.snapshot().tasks.len(), "a reader sees what came since");

        let closed_at = store.snapshot();
        drop(live);
        store.close().await;
        let before = dir.bytes();
        let ended = Journal::open(&dir.0).unwrap();
        assert_eq!(ended.state().unwrap().tasks, closed_at.tasks);
        assert_eq!(dir.bytes(), before);
        assert!(!dir.0.join("state.sqlite-shm").exists(), "an index was left where nobody writes");
        // A server that starts now may move the file below a reader that took it to be still.
        let store = Store::open(Some(&dir.0), ManualClock::at(Timestamp(1_000)), "me").unwrap();
        put(&store, task("later", "web", "i", TaskStatus::Running)).await;
        assert!(ended.state().unwrap_err().to_string().contains("read it again"));
        store.close().await;
    }

    #[tokio::test]
    async fn the_state_as_of_every_commit() {
        let dir = Dir::new("past");
        let store = Store::open(Some(&dir.0), ManualClock::at(Timestamp(1_000)), "me").unwrap();
        let mut then = vec![store.snapshot()];
        put(&store, cluster("c")).await;
        then.push(store.snapshot());
        for n in 0..6 {
            put(&store, task(&format!("{}", n % 3), "web", "i", if n < 3 { TaskStatus::Pending } else { TaskStatus::Running }))
                .await;
            then.push(store.snapshot());
        }
        put(&store, Change::Task(TaskId::new("1"), None)).await;
        then.push(store.snapshot());
        let journal = Journal::open(&dir.0).unwrap();
        for (revision, state) in then.iter().enumerate() {
            let past = journal.state_at(revision as u64).unwrap();
            assert_eq!((past.unknown, past.state.revision), (0, state.revision));
            assert_eq!((&past.state.tasks, &past.state.clusters), (&state.tasks, &state.clusters), "as of {revision}");
            assert_eq!(past.state.counts(&ServiceKey::new("c", "web")), state.counts(&ServiceKey::new("c", "web")));
        }
        // The journal forgets its beginning: tasks 0, 1 and 2 are older than it and are seen again at revisions 5, 6, 7.
        let cut = Connection::open(dir.0.join("state.sqlite")).unwrap();
        cut.execute("DELETE FROM journal WHERE revision < 5", []).unwrap();
        assert_eq!(journal.known_from().unwrap(), Some(7));
        for (revision, unknown) in [(5, 2), (6, 1), (7, 0), (8, 0)] {
            let past = journal.state_at(revision).unwrap();
            assert_eq!(past.unknown, unknown, "as of {revision}");
            assert_eq!(past.state.clusters.len(), 1, "a row that never changed since is known");
            if unknown == 0 {
                assert_eq!(past.state.tasks, then[revision as usize].tasks);
            }
        }
        store.close().await;
    }

    #[tokio::test]
    async fn records_in_order_page_by_page() {
        let dir = Dir::new("records");
        let store = Store::open(Some(&dir.0), ManualClock::at(Timestamp(1_000)), "me").unwrap();
        let many = 2 * RECORDS + 10;
        let all = move |tx: &mut super::super::Tx| {
            (0..many).for_each(|n| tx.decide(decision(n, if n % 2 == 0 { "web" } else { "api" })));
            Ok::<_, Error>(())
        };
        store.update("test", all).await.unwrap();
        let journal = Journal::open(&dir.0).unwrap();
        let count = |wanted: Wanted| journal.records(wanted).map(Result::unwrap).count() as i64;
        let numbers: Vec<u64> = journal.records(Wanted::default()).map(|r| r.unwrap().0).collect();
        assert_eq!(numbers, (1..=many as u64).collect::<Vec<_>>());
        assert_eq!(count(Wanted { service: Some("c/web".to_owned()), ..Wanted::default() }), many / 2);
        assert_eq!(count(Wanted { since: Some(Timestamp(10)), until: Some(Timestamp(19)), ..Wanted::default() }), 10);
        assert_eq!(count(Wanted { after: 1_000, ..Wanted::default() }), many - 1_000);
        assert_eq!(count(Wanted { kind: Some(RecordKind::Alarm), ..Wanted::default() }), 0);
        let newest = store.records(RecordQuery { limit: 1, ..RecordQuery::decisions() }).await.unwrap();
        assert_eq!(journal.records(Wanted { after: many as u64 - 1, ..Wanted::default() }).next().unwrap().unwrap(), newest[0]);
        store.close().await;
    }

    #[test]
    fn what_is_no_state_says_so() {
        let dir = Dir::new("none");
        fs::create_dir_all(&dir.0).unwrap();
        assert!(Journal::open(&dir.0).err().unwrap().to_string().contains("cannot be read"));
        let file = dir.0.join("other.sqlite");
        Connection::open(&file).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
        assert!(Journal::open(&file).err().unwrap().to_string().contains("no state of Beaufort's"));
        Connection::open(&file).unwrap().pragma_update(None, "user_version", SCHEMA + 1).unwrap();
        assert!(matches!(Journal::open(&file).err(), Some(Error::Newer { .. })));
        fs::write(&file, "not a database, by its first sixteen bytes").unwrap();
        assert!(matches!(Journal::open(&file).err(), Some(Error::Damaged(_))));
    }
}
