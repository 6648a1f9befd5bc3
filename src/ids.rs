//! The only source of randomness. Seeded in simulations, so that a run can be repeated.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{ClusterName, DeploymentId, InstanceId, TaskId};

pub type SharedIds = Arc<IdSource>;

pub struct IdSource {
    random: Mutex<StdRng>,
    /// What the next tasks are called, before any is drawn.
    named: Mutex<VecDeque<TaskId>>,
}

impl IdSource {
    pub fn random() -> SharedIds {
        Arc::new(IdSource::of(StdRng::from_rng(&mut rand::rng()), VecDeque::new()))
    }

    pub fn seeded(seed: u64) -> SharedIds {
        Arc::new(IdSource::of(StdRng::seed_from_u64(seed), VecDeque::new()))
    }

    fn of(random: StdRng, named: VecDeque<TaskId>) -> IdSource {
        IdSource { random: Mutex::new(random), named: Mutex::new(named) }
    }

    /// A source that calls its first tasks so.
    pub fn naming(&self, tasks: impl IntoIterator<Item = TaskId>) -> IdSource {
        IdSource::of(StdRng::seed_from_u64(self.u64()), tasks.into_iter().collect())
    }

    pub fn u64(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    fn hex32(&self) -> String {
        format!("{:016x}{:016x}", self.u64(), self.u64())
    }

    pub fn task(&self) -> TaskId {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        named.unwrap_or_else(|| TaskId::new(self.hex32()))
    }

    pub fn instance(&self) -> InstanceId {
        InstanceId::new(self.hex32())
    }

    /// `ecs-svc/` and 19 digits.
    pub fn deployment(&self) -> DeploymentId {
        DeploymentId::new(format!("ecs-svc/{:019}", self.u64() % 9_000_000_000_000_000_000 + 1_000_000_000_000_000_000))
    }

    /// A version-4 UUID in its usual form.
    pub fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.u64().to_be_bytes());
        bytes[8..].copy_from_slice(&self.u64().to_be_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// What the `n`th task of a client's token is called: the same whenever the client asks again, after a crash too. FNV-1a of 128 bits and
/// SplitMix64's last steps, which stay what they are from one release to the next.
pub fn task_of_token(cluster: &ClusterName, token: &str, n: usize) -> TaskId {
    let text = format!("{cluster}\0{token}\0{n}");
    let mixed = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    let low = scatter(mixed as u64);
    TaskId::new(format!("{:016x}{low:016x}", scatter((mixed >> 64) as u64 ^ low)))
}

/// So that names that differ in one digit do not look alike.
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_a_token_have_their_names() {
        let (cluster, other) = (ClusterName::new("c"), ClusterName::new("c2"));
        let name = |n| task_of_token(&cluster, "token", n);
        // Pinned: a name that changes from one release to the next lets a task run twice over an update.
        assert_eq!(name(0).to_string(), "4d67cce4046f66eaac5ba89132b1d552");
        assert!(name(0) != name(1) && name(0) != task_of_token(&other, "token", 0));
        let source = IdSource::seeded(1).naming([name(0), name(1)]);
        assert_eq!((source.task(), source.task()), (name(0), name(1)));
        assert_ne!(source.task(), name(2));
    }
}
