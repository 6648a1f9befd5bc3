//! `/api/backup`: a copy of the state, made while the server works and fetched in pieces, so that neither side holds it in memory.
//! One at a time. `POST /api/backup` begins, `GET /api/backup` tells how far it is, `GET /api/backup/data` reads a piece,
//! `POST /api/backup/end` removes the copy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::{Answer, Answered, App, Params, Refusal, ok, unavailable};
use crate::model::{Millis, Timestamp};
use crate::store::Manifest;

/// The largest piece of one answer.
const PIECE: usize = 4 << 20;
/// A copy that nobody has asked for in so long may be replaced by the next.
const ABANDONED_MS: Millis = 60_000;

/// The backup that is being taken or fetched.
#[derive(Default)]
pub struct Backups(Mutex<Option<Current>>);

struct Current {
    id: String,
    touched: Timestamp,
    stage: Stage,
}

#[derive(Clone)]
enum Stage {
    Copying,
    Ready { file: PathBuf, bytes: u64, manifest: Box<Manifest> },
    Failed(String),
}

impl Backups {
    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn begin(app: &Arc<App>) -> Answered {
    if !app.store.is_durable() {
        return Err(Refusal {
            status: 409,
            error: "this Beaufort keeps its state in memory: there is nothing to copy".to_owned(),
            hint: "start it with --data-dir to keep the state",
        });
    }
    let (id, now) = (app.ids.uuid(), app.clock.now());
    let mut current = app.backups.lock();
    if let Some(other) = current.as_ref().filter(|other| other.is_busy(now)) {
        return Err(Refusal {
            status: 409,
            error: format!("another backup is being taken ({})", other.id),
            hint: "wait until it is done; one that nobody fetches gives way after a minute",
        });
    }
    *current = Some(Current { id: id.clone(), touched: now, stage: Stage::Copying });
    let (app, mine) = (app.clone(), id.clone());
    tokio::task::spawn_blocking(move || {
        let stage = copy(&app);
        if let Stage::Failed(error) = &stage {
            tracing::warn!(%error, "a backup could not be taken");
        }
        if let Some(current) = app.backups.lock().as_mut().filter(|current| current.id == mine) {
            (current.stage, current.touched) = (stage, app.clock.now());
        }
    });
    Ok(Answer { status: 202, ..ok(&json!({ "id": id, "stage": "copying" })) })
}

fn copy(app: &App) -> Stage {
    let taken = app.store.backup(app.clock.now()).ok_or_else(|| "the state is in memory".to_owned());
    let sized = taken.and_then(|taken| taken.map_err(|e| e.to_string())).and_then(|(file, manifest)| {
        let bytes = file.metadata().map_err(|e| e.to_string())?.len();
        Ok(Stage::Ready { file, bytes, manifest: Box::new(manifest) })
    });
    sized.unwrap_or_else(Stage::Failed)
}

impl Current {
    fn is_busy(&self, now: Timestamp) -> bool {
        match self.stage {
            Stage::Copying => true,
            Stage::Ready { .. } => now.since(self.touched) < ABANDONED_MS,
            Stage::Failed(_) => false,
        }
    }

    fn tell(&self) -> Value {
        match &self.stage {
            Stage::Copying => json!({ "id": self.id, "stage": "copying" }),
            Stage::Ready { bytes, manifest, .. } => {
                json!({ "id": self.id, "stage": "ready", "bytes": bytes, "manifest": manifest })
            }
            Stage::Failed(error) => json!({ "id": self.id, "stage": "failed", "error": error }),
        }
    }
}

fn gone() -> Refusal {
    Refusal { status: 404, error: "there is no such backup, or it has given way to another".to_owned(), hint: "begin again" }
}

pub(super) fn show(app: &App, params: &Params) -> Answered {
    Ok(ok(&current(app, params)?.tell()))
}

/// The current one, if it is what is asked for; being asked for keeps it.
fn current(app: &App, params: &Params) -> Result<Current, Refusal> {
    let mut held = app.backups.lock();
    let current = held.as_mut().filter(|current| params.get("id") == Some(&current.id)).ok_or_else(gone)?;
    current.touched = app.clock.now();
    Ok(Current { id: current.id.clone(), touched: current.touched, stage: current.stage.clone() })
}

pub(super) async fn data(app: &App, params: &Params) -> Answered {
    let Stage::Ready { file, .. } = current(app, params)?.stage else { return Err(gone()) };
    let offset = params.number::<u64>("offset")?.unwrap_or(0);
    let read = tokio::task::spawn_blocking(move || piece(&file, offset)).await.map_err(unavailable)?;
    Ok(Answer { status: 200, content_type: "application/octet-stream", body: read.map_err(unavailable)?.into() })
}

fn piece(file: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let (file, mut piece, mut filled) = (File::open(file)?, vec![0; PIECE], 0);
    while filled < PIECE {
        match file.read_at(&mut piece[filled..], offset.saturating_add(filled as u64))? {
            0 => break,
            more => filled += more,
        }
    }
    piece.truncate(filled);
    Ok(piece)
}

pub(super) fn end(app: &App, params: &Params) -> Answered {
    let ended = current(app, params)?;
    *app.backups.lock() = None;
    if let Stage::Ready { file, .. } = ended.stage {
        std::fs::remove_file(file).map_err(unavailable)?;
    }
    Ok(ok(&json!({ "id": ended.id, "stage": "ended" })))
}
