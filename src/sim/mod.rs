//! A deterministic world: the real store, control loops, decisions, telemetry, API and agents on simulated engines, one thread and
//! one time. A seed makes a script, which says all that happens to the world; faults come in a safety phase, and a fault-free
//! liveness phase must bring everything to what was asked for.
//!
//! Owns faults, clients and checks. Never a rule of its own: what runs here is what runs in production. Start reading at [`run`]
//! and [`script`]; [`check`] is what must hold, [`generate`] what a seed chooses, [`shrink`] how a failing script becomes small.

mod act;
pub mod check;
pub mod clients;
mod clock;
mod doom;
pub mod generate;
mod host;
pub mod many;
mod plane;
pub mod script;
pub mod seen;
pub mod shrink;
pub mod transcript;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;

pub use check::{Breach, Checks, Rule};
pub use clock::SimClock;
pub use doom::Doom;
pub use generate::Options;
pub use script::{Act, Call, Fault, Script};
pub use wire::{Bad, Wire};
pub use world::{Refused, Setup, World};

use crate::control::ControlSettings;
use crate::model::decision::Decision;
use crate::model::task::Resources;
use crate::model::{Millis, Timestamp};

/// Runs a world on this thread, in a runtime whose time stands still until everything in it waits.
pub fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    Ok(runtime.block_on(future))
}

/// What became of a script.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub seed: u64,
    /// Empty: everything held.
    pub breaches: Vec<Breach>,
    /// What was done, when, and what came of it.
    pub story: Vec<String>,
    /// Every decision and when it was made, if that was asked for.
    pub ledger: Vec<(Timestamp, Decision)>,
    pub commits: u64,
    pub decisions: u64,
    pub digest: u32,
    pub simulated_ms: Millis,
    /// Hosts by the ids of their container instances.
    pub hosts: BTreeMap<String, String>,
}

/// Runs a script in `dir`, which is made and removed, on this thread.
pub fn run_in(dir: &Path, script: &Script, ledger: bool) -> anyhow::Result<Report> {
    // Of a run that was interrupted.
    let _ = std::fs::remove_dir_all(dir);
    let report = block_on(run(script, dir, ledger))?;
    std::fs::remove_dir_all(dir)?;
    report
}

/// One script: what it says happens until something is broken, and then everything must come to what was asked for.
pub async fn run(script: &Script, dir: &Path, ledger: bool) -> anyhow::Result<Report> {
    let head = &script.head;
    let setup = Setup {
        instances: head.instances,
        zones: head.zones,
        resources: Resources { cpu: head.cpu, memory: head.memory, ..Resources::default() },
        data_dir: Some(dir.to_owned()),
        settings: ControlSettings::default(),
    };
    let mut world = World::new(head.seed, setup).await?;
    world.checks.ledger = ledger.then(Vec::new);
    let begun = world.now();
    let mut story = Vec::new();
    let mut is_calm = false;
    for command in &script.commands {
        if !is_calm && command.at >= head.faults_ms {
            is_calm = true;
            world.run_until(head.faults_ms - world.now().since(begun), |world| !world.checks.breaches.is_empty()).await;
            world.repair_all().await;
        }
        world.run_until(command.at - world.now().since(begun), |world| !world.checks.breaches.is_empty()).await;
        if !world.checks.breaches.is_empty() {
            break;
        }
        let at = world.now().clock();
        let outcome = world.carry_out(&command.act).await;
        story.push(format!("{at} {:?} {outcome}", command.act));
    }
    if world.checks.breaches.is_empty() {
        world.settle(head.settle_ms).await;
    }
    Ok(Report {
        seed: head.seed,
        story,
        simulated_ms: world.now().since(begun),
        hosts: world.host_names(),
        commits: world.checks.commits,
        decisions: world.checks.decisions,
        digest: world.checks.digest,
        ledger: world.checks.ledger.take().unwrap_or_default(),
        breaches: std::mem::take(&mut world.checks.breaches),
    })
}
