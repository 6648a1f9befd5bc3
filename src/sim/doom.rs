//! What becomes of commits: the next few may be refused, and one may be the last that a control plane makes.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::store::{Commit, Fate, Fates};

pub struct Doom {
    next: Mutex<Next>,
    /// What was on disk when it died.
    last: Mutex<Option<Commit>>,
    died: watch::Sender<bool>,
}

#[derive(Default)]
struct Next {
    /// Commits that the disk refuses from now on.
    refuse: u32,
    /// The process dies at the commit after so many more; durable: just after it is on disk.
    death: Option<(u32, bool)>,
}

impl Default for Doom {
    fn default() -> Doom {
        Doom { next: Mutex::default(), last: Mutex::default(), died: watch::Sender::new(false) }
    }
}

impl Doom {
    fn next(&self) -> std::sync::MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn refuse(&self, commits: u32) {
        self.next().refuse += commits;
    }

    /// What was told before and did not come yet is forgotten.
    pub fn die_at(&self, commits: u32, durable: bool) {
        self.next().death = Some((commits, durable));
    }

    /// Faults are over.
    pub fn clear(&self) {
        *self.next() = Next::default();
    }

    /// The commit that became durable and that nobody was told of, once.
    pub fn last_words(&self) -> Option<Commit> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns when the writer has died.
    pub async fn death(&self) {
        // The sender is ours, so it is not closed.
        let _ = self.died.subscribe().wait_for(|died| *died).await;
    }
}

impl Fates for Doom {
    fn of(&self, commit: &Commit) -> Fate {
        let mut next = self.next();
        if let Some((left, durable)) = &mut next.death {
            if *left == 0 {
                if !*durable {
                    return Fate::LostBefore;
                }
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(commit.clone());
                return Fate::LostAfter;
            }
            *left -= 1;
        }
        if next.refuse > 0 {
            next.refuse -= 1;
            return Fate::Refused("simulated: no space left on device".to_owned());
        }
        Fate::Written
    }

    fn died(&self) {
        self.died.send_replace(true);
    }
}
