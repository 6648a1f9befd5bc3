//! A deterministic world: the real store, control loops, decisions, telemetry, API and agents on simulated engines, one thread and
//! one time. A seed decides what goes wrong and when, not yet the order within one moment; faults come in a safety phase, and a fault-free liveness phase must bring
//! everything to what was asked for.
//!
//! Owns faults and checks. Never a rule of its own: what runs here is what runs in production. Start reading at [`run`].

mod check;
mod clock;
mod fault;
mod host;
mod plane;
pub mod seen;
mod world;

use std::future::Future;

use rand::RngExt;
use serde_json::json;

pub use check::Checks;
pub use clock::SimClock;
pub use fault::Fault;
pub use host::Wire;
pub use world::{Refused, Setup, World};

use crate::model::Millis;

/// Runs a world on this thread, in a runtime whose time stands still until everything in it waits.
pub fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    Ok(runtime.block_on(future))
}

#[derive(Clone, Debug)]
pub struct Options {
    pub setup: Setup,
    /// Desired over all services.
    pub tasks: u32,
    pub services: u32,
    /// How long things go wrong.
    pub faults_ms: Millis,
    /// Between two faults, on average.
    pub fault_every_ms: Millis,
    /// How long the world may take to come to rest afterwards.
    pub settle_ms: Millis,
    /// Deployments and new desired counts arrive while things go wrong.
    pub changes: bool,
    /// Containers write lines. These are stored by other threads, so the order of what happens in one moment is no longer the seed's.
    pub lines: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            setup: Setup::default(),
            tasks: 24,
            services: 2,
            faults_ms: 90_000,
            fault_every_ms: 3_000,
            settle_ms: 300_000,
            changes: true,
            lines: false,
        }
    }
}

/// What became of a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub seed: u64,
    /// Empty: everything held.
    pub breaches: Vec<String>,
    /// What went wrong on purpose, and what was asked for, in order.
    pub story: Vec<String>,
    pub commits: u64,
    pub decisions: u64,
    pub digest: u32,
    pub simulated_ms: Millis,
}

/// One seed: services are made, things go wrong, and then everything must come to what was asked for.
pub async fn run(seed: u64, options: Options) -> anyhow::Result<Report> {
    let mut world = World::new(seed, options.setup.clone()).await?;
    let begun = world.now();
    let mut story = Vec::new();
    let mut services = Vec::new();
    for n in 0..options.services {
        let behaviour = fault::random_behaviour(&mut world.random);
        register(&mut world, &options, &format!("f{n}"), behaviour).await?;
        let desired = options.tasks / options.services.max(1);
        story.push(format!("service s{n} of {desired} of {behaviour}"));
        let (minimum, maximum) = [(100, 200), (50, 100), (50, 200), (90, 150)][world.random.random_range(0..4)];
        let input = json!({"serviceName": format!("s{n}"), "taskDefinition": format!("f{n}"), "desiredCount": desired,
            "deploymentConfiguration": {"minimumHealthyPercent": minimum, "maximumPercent": maximum}});
        world.call("ecs", "CreateService", input).await?;
        services.push(desired);
    }
    let end = world.now() + options.faults_ms;
    while world.now() < end {
        let wait = world.random.random_range(0..=options.fault_every_ms * 2);
        world.run_for(wait).await;
        if options.changes && world.random.random_range(0..4) == 0 {
            story.push(format!("{} {}", world.now().clock(), change(&mut world, &options, &services).await));
            continue;
        }
        let fault = Fault::random(&mut world);
        story.push(format!("{} {fault:?}", world.now().clock()));
        fault.strike(&mut world).await;
    }
    world.settle(options.settle_ms).await;
    Ok(Report {
        seed,
        story,
        simulated_ms: world.now().since(begun),
        commits: world.checks.commits,
        decisions: world.checks.decisions,
        digest: world.checks.digest,
        breaches: world.checks.breaches,
    })
}

async fn register(world: &mut World, options: &Options, family: &str, behaviour: &str) -> Result<(), Refused> {
    // Pulls know only the image's name, which may hold no `+`; the rest is said in the environment.
    let image = if behaviour.contains('+') { "sim/ok".to_owned() } else { format!("sim/{behaviour}") };
    let mut container = json!({"name": "app", "image": image, "cpu": 128, "memory": 128, "essential": true,
        "environment": [{"name": "SIM", "value": behaviour}]});
    if options.lines {
        container["logConfiguration"] = json!({"logDriver": "awslogs", "options": {"awslogs-group": "sim",
            "awslogs-create-group": "true", "awslogs-stream-prefix": "sim", "awslogs-region": "us-east-1"}});
    }
    let input = json!({"family": family, "containerDefinitions": [container]});
    world.call("ecs", "RegisterTaskDefinition", input).await.map(drop)
}

/// A client asks for something else. A control plane that is down refuses, and the client gives up.
async fn change(world: &mut World, options: &Options, services: &[u32]) -> String {
    let n = world.random.random_range(0..services.len());
    let (service, family) = (format!("s{n}"), format!("f{n}"));
    let (what, input) = if world.random.random_range(0..2) == 0 {
        let behaviour = fault::random_behaviour(&mut world.random);
        if let Err(refused) = register(world, options, &family, behaviour).await {
            return format!("no new revision of {family}: {refused}");
        }
        (format!("{service} rolls to {behaviour}"), json!({"service": service, "taskDefinition": family}))
    } else {
        // One task with 90 to 150 % of it can never be replaced, on ECS neither.
        let desired = match world.random.random_range(0..=services[n]) {
            1 => 2,
            other => other,
        };
        (format!("{service} desires {desired}"), json!({"service": service, "desiredCount": desired}))
    };
    match world.call("ecs", "UpdateService", input).await {
        Ok(_) => what,
        Err(refused) => format!("{what}: {refused}"),
    }
}
