//! Lines by Docker's log API, where the files cannot be read (rootless, remote engines, Docker Desktop). Good enough, but not whole:
//! Docker loses lines silently when a file rotates under a slow reader.

use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Shared;
use super::follow::Followed;
use super::jsonfile::{MinuteCache, Record};
use super::lines::Joiner;
use crate::model::log::LineBatch;

/// The API knows no positions but times: the last record's, and how many had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Moment {
    nanos: i64,
    same: u64,
}

const AGAIN: Duration = Duration::from_millis(500);

struct Reader {
    joiner: Joiner<Moment>,
    at: Moment,
    /// How many records of the moment `at` this stream has shown already.
    seen: u64,
    minute: MinuteCache,
    /// A terminal's stream has no frames: bytes up to the next newline.
    rest: Vec<u8>,
}

/// Until the container has ended and everything was handed on, or the engine is dropped.
pub async fn run(shared: Arc<Shared>, id: String, followed: Arc<Followed>, out: mpsc::Sender<LineBatch>) {
    let (joiner, from) = Joiner::new(id.clone(), followed.target.clone(), followed.resume.as_ref());
    let mut reader = Reader { joiner, at: from.unwrap_or_default(), seen: 0, minute: MinuteCache::default(), rest: Vec::new() };
    loop {
        // Known before the stream is read: its end is then the log's end.
        let ended = followed.progress().ended;
        let whole = tokio::select! {
            () = shared.stop.cancelled() => return,
            whole = read(&shared, &id, &mut reader, &out) => whole,
        };
        let mut batches = Vec::new();
        if ended && whole {
            reader.joiner.finish(reader.at, &mut batches);
        } else {
            reader.joiner.flush(reader.at, &mut batches);
        }
        for batch in batches {
            if out.send(batch).await.is_err() {
                return;
            }
        }
        if ended && whole {
            followed.set_drained(reader.joiner.next());
            // Kept for a container that is started again; gone when it is removed.
            loop {
                let changed = followed.changed.notified();
                if !followed.progress().ended {
                    break;
                }
                if shared.followed.get(&id).is_none_or(|f| !Arc::ptr_eq(&f, &followed)) {
                    return;
                }
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = changed => {}
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                }
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = followed.changed.notified() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// True when the stream ended as it should, false on an error.
async fn read(shared: &Shared, id: &str, reader: &mut Reader, out: &mpsc::Sender<LineBatch>) -> bool {
    let since = (reader.at.nanos / 1_000_000_000).clamp(0, i64::from(i32::MAX)) as i32;
    let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).timestamps(true).since(since).build();
    let mut stream = shared.docker.logs(id, Some(options));
    reader.seen = 0;
    let mut batches = Vec::new();
    loop {
        // Lines that came are handed on when no more come at once.
        let next = match tokio::time::timeout(Duration::from_millis(50), stream.next()).await {
            Ok(next) => next,
            Err(_) => {
                reader.joiner.flush(reader.at, &mut batches);
                for batch in batches.drain(..) {
                    if out.send(batch).await.is_err() {
                        return false;
                    }
                }
                continue;
            }
        };
        match next {
            Some(Ok(LogOutput::StdErr { message })) => reader.frame(true, &message, &mut batches),
            Some(Ok(LogOutput::StdOut { message } | LogOutput::StdIn { message })) => {
                reader.frame(false, &message, &mut batches);
            }
            Some(Ok(LogOutput::Console { message })) => {
                reader.rest.extend_from_slice(&message);
                while let Some(end) = memchr::memchr(b'\n', &reader.rest) {
                    let line: Vec<u8> = reader.rest.drain(..=end).collect();
                    reader.frame(false, &line, &mut batches);
                }
            }
            Some(Err(_)) => return false,
            None => {
                let rest = std::mem::take(&mut reader.rest);
                reader.frame(false, &rest, &mut batches);
                for batch in batches {
                    if out.send(batch).await.is_err() {
                        return false;
                    }
                }
                return true;
            }
        }
        for batch in batches.drain(..) {
            if out.send(batch).await.is_err() {
                return false;
            }
        }
    }
}

impl Reader {
    /// One record: its time, a space, its text.
    fn frame(&mut self, stderr: bool, frame: &[u8], out: &mut Vec<LineBatch>) {
        let Some(space) = memchr::memchr(b' ', frame) else { return };
        let Some(nanos) = self.minute.parse(&frame[..space]) else { return };
        if nanos < self.at.nanos {
            return;
        }
        if nanos == self.at.nanos {
            self.seen += 1;
            if self.seen <= self.at.same {
                return;
            }
        } else {
            self.seen = 1;
        }
        let before = self.at;
        self.at = Moment { nanos, same: self.seen };
        let text = &frame[space + 1..];
        let (text, partial) = match text.strip_suffix(b"\n") {
            Some(line) => (line, false),
            None => (text, true),
        };
        self.joiner.record(&Record { stderr, nanos, partial, text }, before, self.at, out);
    }
}
