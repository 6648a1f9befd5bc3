//! The only source of randomness. Seeded in simulations, so that a run can be repeated.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{DeploymentId, InstanceId, TaskId};

pub type SharedIds = Arc<IdSource>;

pub struct IdSource(Mutex<StdRng>);

impl IdSource {
    pub fn random() -> SharedIds {
        Arc::new(IdSource(Mutex::new(StdRng::from_rng(&mut rand::rng()))))
    }

    pub fn seeded(seed: u64) -> SharedIds {
        Arc::new(IdSource(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub fn u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    fn hex32(&self) -> String {
        format!("{:016x}{:016x}", self.u64(), self.u64())
    }

    pub fn task(&self) -> TaskId {
        TaskId::new(self.hex32())
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
