//! Whether a server can live in its data directory, looked at before anything is opened there: what is wrong with it is said in terms
//! of what the person can do, and nothing in it is changed.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::failure::Failure;

/// Room without which a start is not tried: the stores' first writes.
const ROOM: usize = 1 << 20;
const STATE: &str = "state.sqlite";

pub fn check(dir: &Path) -> Result<(), Failure> {
    let shown = dir.display();
    let other = "choose another with --data-dir";
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => {
            return Err(Failure::new(format!("{shown} cannot be opened: it is not a directory"), other));
        }
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(|e| unusable(dir, &e))?;
        }
        Err(e) => return Err(unusable(dir, &e)),
    }
    let without_state = ["metrics/manifest.json", "logs/snapshot.json"].into_iter().find(|part| dir.join(part).exists());
    if let (Some(part), false) = (without_state, dir.join(STATE).exists()) {
        return Err(Failure::new(
            format!("{shown} holds {part} and no {STATE}: its state is missing, and with it whose containers run here"),
            format!("restore {STATE} from a backup; or, to begin anew with nothing, {other}"),
        ));
    }
    probe(dir).map_err(|e| unusable(dir, &e))
}

/// Takes room and gives it back.
fn probe(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(".room");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path);
    let written = file.and_then(|mut file| {
        file.write_all(&vec![1; ROOM])?;
        file.sync_all()
    });
    // Not there when it could not be made.
    let _ = fs::remove_file(&path);
    written
}

fn unusable(dir: &Path, error: &std::io::Error) -> Failure {
    let shown = dir.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::new(
            format!("there is no room on the disk of the data directory {shown}: a start needs at least {} MiB", ROOM >> 20),
            "make room on that disk, then start again; tasks run on meanwhile, and what was acknowledged is there",
        ),
        ErrorKind::ReadOnlyFilesystem => Failure::new(
            format!("the data directory {shown} is on a disk that can only be read"),
            "mount it for writing (after an error the kernel makes a disk read-only: see dmesg), or choose another with --data-dir",
        ),
        ErrorKind::PermissionDenied => Failure::new(
            format!("the data directory {shown} cannot be written by this user ({})", nix::unistd::getuid()),
            "start as the user that it belongs to, give it to this one (chown -R), or choose another with --data-dir",
        ),
        _ => Failure::new(format!("the data directory {shown} cannot be opened: {error}"), "choose another with --data-dir"),
    }
}

/// What a store said, with what to do about it where it is the disk's or the owner's doing.
pub fn explain(dir: &Path, error: anyhow::Error) -> anyhow::Error {
    let said = format!("{error:#}").to_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let next = if is(&["no space left", "disk is full", "quota exceeded"]) {
        "make room on the disk of the data directory, then start again; tasks run on meanwhile"
    } else if is(&["permission denied", "readonly database", "unable to open database"]) {
        "let this user read and write everything in the data directory (chown -R), or choose another with --data-dir"
    } else {
        return error;
    };
    Failure::new(format!("the data directory {} cannot be used: {error:#}", dir.display()), next).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_and_left_empty_and_a_file_is_none() {
        let dir = std::env::temp_dir().join(format!("beaufort-datadir-{}", std::process::id()));
        check(&dir.join("data")).unwrap();
        assert_eq!(fs::read_dir(dir.join("data")).unwrap().count(), 0);
        fs::write(dir.join("file"), "").unwrap();
        assert!(check(&dir.join("file")).unwrap_err().what.ends_with("cannot be opened: it is not a directory"));
        fs::create_dir(dir.join("data/logs")).unwrap();
        fs::write(dir.join("data/logs/snapshot.json"), "").unwrap();
        let missing = check(&dir.join("data")).unwrap_err();
        assert!(missing.what.contains("holds logs/snapshot.json and no state.sqlite"), "{missing}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_a_store_said_gets_what_to_do() {
        let full = anyhow::anyhow!("database or disk is full").context("the state");
        let explained = explain(Path::new("/d"), full);
        let failure = explained.downcast_ref::<Failure>().unwrap();
        assert_eq!(failure.what, "the data directory /d cannot be used: the state: database or disk is full");
        assert!(failure.next.starts_with("make room"));
        assert!(explain(Path::new("/d"), anyhow::anyhow!("something else")).downcast_ref::<Failure>().is_none());
    }
}
