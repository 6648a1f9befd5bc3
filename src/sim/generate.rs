//! From a seed to a script: the world's shape, what is asked for, and what goes wrong when. A pure function, so that a seed says all.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::script::{Act, Call, Fault, Head, Script, Timed};
use super::wire::{Bad, Wire};
use crate::model::Millis;

/// What a seed may choose, and what is said.
#[derive(Clone, Debug)]
pub struct Options {
    /// None: the seed's choice.
    pub instances: Option<usize>,
    /// Desired over all services.
    pub tasks: Option<u32>,
    pub services: Option<u32>,
    /// How long things go wrong.
    pub faults_ms: Millis,
    /// Between two faults, on average.
    pub fault_every_ms: Millis,
    /// How long the world may take to come to rest afterwards.
    pub settle_ms: Millis,
    /// Of [`Fault::KINDS`].
    pub faults: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            instances: None,
            tasks: None,
            services: None,
            faults_ms: 60_000,
            fault_every_ms: 3_000,
            settle_ms: 300_000,
            faults: Fault::KINDS.map(str::to_owned).to_vec(),
        }
    }
}

/// Of each task, in CPU units and in MiB.
pub const TASK: u32 = 128;
/// Longer than an instance may be out of reach before its tasks are replaced: one fault in eight is so long.
const LONG_MS: Millis = 80_000;
/// Tasks that belong to no service, at most.
const MOST_RUN: u32 = 6;

const GOOD: [&str; 9] = [
    "ok",
    "start@700ms",
    "pull@2s",
    "stubborn",
    "start@3s",
    "start@200ms+stubborn",
    "health@2s+start@100ms",
    "log:3+start@100ms",
    "health@1s+pull@500ms",
];
/// What no service comes to rest with.
const DOOMED: [&str; 7] = ["exit:1@1s", "exit:0@4s", "fail-pull", "fail-start", "fail-create", "oom@2s", "unhealthy@1s"];

/// Whether tasks that behave so can stay.
pub fn is_doomed(behaviour: &str) -> bool {
    DOOMED.contains(&behaviour)
}

/// Whether its container has a health check.
pub fn has_health(behaviour: &str) -> bool {
    behaviour.contains("health")
}

const PERCENTS: [(u32, u32); 6] = [(100, 200), (50, 100), (50, 200), (90, 150), (0, 100), (75, 125)];

/// Whether so many tasks can be replaced within the percentages: one task with 90 to 150 % of it never can, on ECS neither, as
/// floor(1.5) is one.
fn is_replaceable(desired: u32, (minimum, maximum): (u32, u32)) -> bool {
    desired * maximum / 100 > desired || (desired * minimum).div_ceil(100) < desired
}

fn replaceable(desired: u32, percents: (u32, u32)) -> u32 {
    (desired..).find(|&n| is_replaceable(n, percents)).unwrap_or(desired)
}

struct Asked {
    desired: u32,
    most: u32,
    percents: (u32, u32),
    awsvpc: bool,
    tracked: bool,
    stepped: bool,
    doomed: bool,
}

struct Maker<'a> {
    options: &'a Options,
    random: StdRng,
    commands: Vec<Timed>,
    instances: usize,
    services: Vec<Asked>,
    run: u32,
}

pub fn script(seed: u64, options: &Options) -> Script {
    let mut random = StdRng::seed_from_u64(seed);
    let instances = options.instances.unwrap_or_else(|| random.random_range(2..=8)).max(1);
    let zones = random.random_range(1..=3);
    let services = options.services.unwrap_or_else(|| random.random_range(1..=3)).max(1);
    let tasks = options.tasks.unwrap_or_else(|| random.random_range(6..=24));
    let mut maker = Maker { options, random, commands: Vec::new(), instances, services: Vec::new(), run: 0 };
    for n in 0..services {
        maker.service(n, (tasks / services).max(1));
    }
    // A tight world has room for a rollout of one task after the other, a roomy one for all at once.
    let most: u32 = maker.services.iter().map(|s| s.most).sum();
    let percent = if maker.random.random_range(0..3) == 0 { 130 } else { 220 };
    let room = (most * percent / 100 + MOST_RUN + 2).div_ceil(instances as u32) + 1;
    maker.trouble();
    maker.commands.sort_by_key(|command| command.at);
    let head = Head {
        seed,
        instances,
        zones,
        cpu: room * TASK,
        memory: room * TASK * 2,
        faults_ms: options.faults_ms,
        settle_ms: options.settle_ms,
    };
    Script { head, commands: maker.commands }
}

impl Maker<'_> {
    fn at(&mut self, at: Millis, act: Act) {
        self.commands.push(Timed { at, act });
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_range(0..n) == 0
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())]
    }

    fn register(&mut self, n: usize, behaviour: &str, host_port: Option<u16>) -> Act {
        let (family, awsvpc) = (format!("f{n}"), self.services[n].awsvpc);
        Act::Call(Call::Register { family, behaviour: behaviour.to_owned(), awsvpc, host_port })
    }

    fn service(&mut self, n: u32, share: u32) {
        let service = format!("s{n}");
        let awsvpc = self.one_in(3);
        let host_port = !awsvpc && self.one_in(8);
        // A fixed host port is there once on each instance.
        let desired = if host_port { share.min(self.instances as u32 / 2).max(1) } else { share };
        let percents = if host_port { (0, 100) } else { self.one_of(&PERCENTS) };
        let desired = replaceable(desired, percents);
        let (minimum, maximum) = percents;
        // A policy may choose any number.
        let scales = !host_port && (1..20).all(|n| is_replaceable(n, percents)) && self.one_in(2);
        let stepped = scales && self.one_in(3);
        let most = if scales { desired * 2 } else { desired };
        self.services.push(Asked { desired, most, percents, awsvpc, tracked: scales && !stepped, stepped, doomed: false });
        let behaviour = self.one_of(&GOOD);
        let register = self.register(n as usize, behaviour, host_port.then_some(8_000 + n as u16));
        self.at(0, register);
        let family = format!("f{n}");
        self.at(0, Act::Call(Call::Create { service: service.clone(), family, desired, minimum, maximum, awsvpc }));
        if scales {
            self.at(2_000, Act::Call(Call::Target { service: service.clone(), min: desired.min(2), max: most }));
            let policy = match stepped {
                true => Call::Steps { service: service.clone() },
                false => Call::Track { service: service.clone(), percent: self.one_of(&[30, 50, 70]) },
            };
            self.at(2_000, Act::Call(policy));
            self.load(2_500, n as usize);
        }
    }

    /// From idle to twice of what the most tasks can carry.
    fn load(&mut self, at: Millis, n: usize) {
        let most = self.services[n].most * TASK * 1_000 / 1_024;
        let millicores = self.random.random_range(0..=most * 2);
        self.at(at, Act::Load { service: format!("s{n}"), millicores });
    }

    fn trouble(&mut self) {
        let mut at = 3_000;
        loop {
            at += self.random.random_range(0..=self.options.fault_every_ms.max(1) * 2);
            if at >= self.options.faults_ms {
                break;
            }
            let change = self.options.faults.is_empty() || self.one_in(3);
            match change {
                true => self.change(at),
                false => {
                    let fault = self.fault();
                    self.at(at, Act::Fault(fault));
                }
            }
        }
        for n in 0..self.services.len() {
            if self.services[n].doomed {
                let register = self.register(n, "ok", None);
                self.at(self.options.faults_ms, register);
                self.at(self.options.faults_ms, Act::Call(Call::Roll { service: format!("s{n}"), family: format!("f{n}") }));
            }
            if self.services[n].stepped {
                for policy in ["out", "in"] {
                    let (service, policy) = (format!("s{n}"), policy.to_owned());
                    self.at(self.options.faults_ms, Act::Alert { service, policy, firing: false });
                }
            }
        }
    }

    /// A client asks for something else, or a load changes.
    fn change(&mut self, at: Millis) {
        let n = self.random.random_range(0..self.services.len());
        let (service, family) = (format!("s{n}"), format!("f{n}"));
        let (tracked, stepped) = (self.services[n].tracked, self.services[n].stepped);
        match self.random.random_range(0..12) {
            0..=2 => {
                let doomed = self.one_in(4);
                let behaviour = if doomed { self.one_of(&DOOMED) } else { self.one_of(&GOOD) };
                self.services[n].doomed |= doomed;
                let register = self.register(n, behaviour, None);
                self.at(at, register);
                self.at(at, Act::Call(Call::Roll { service, family }));
            }
            3..=5 if tracked => self.load(at, n),
            3..=5 if stepped => {
                let policy = self.one_of(&["out", "in"]).to_owned();
                let firing = !self.one_in(3);
                self.at(at, Act::Alert { service, policy, firing });
            }
            3..=5 => {
                let Asked { desired, percents, .. } = self.services[n];
                let desired = match self.random.random_range(0..=desired) {
                    0 => 0,
                    some => replaceable(some, percents).min(desired),
                };
                self.at(at, Act::Call(Call::Desire { service, desired }));
            }
            6 if self.run < MOST_RUN && !self.services[n].awsvpc => {
                let count = self.random.random_range(1..=2);
                self.run += count;
                self.at(at, Act::Call(Call::RunTask { family, count }));
            }
            7 => {
                let pick = self.random.random_range(0..100);
                self.at(at, Act::Call(Call::StopTask { pick }));
            }
            8 => {
                let (name, threshold) = (format!("a{}", self.random.random_range(0..3)), self.random.random_range(1..100));
                self.at(at, Act::Call(Call::Alarm { name, threshold }));
            }
            9 => {
                let name = format!("a{}", self.random.random_range(0..3));
                self.at(at, Act::Call(Call::Unalarm { name }));
            }
            10 if tracked => {
                let percent = self.random.random_range(20..=80);
                self.at(at, Act::Call(Call::Track { service, percent }));
            }
            11 if self.one_in(4) => self.at(at, Act::Call(Call::Delete { service })),
            _ => {
                let Asked { desired, awsvpc, percents: (minimum, maximum), .. } = self.services[n];
                let create = Call::Create { service, family, desired, minimum, maximum, awsvpc };
                self.at(at, Act::Call(create));
            }
        }
    }

    fn fault(&mut self) -> Fault {
        let kinds = self.options.faults.clone();
        let weight = |kind: &str| match kind {
            "kill" | "agent" | "wire" | "messages" => 3,
            "engine" | "commit" => 2,
            _ => 1,
        };
        let all: u32 = kinds.iter().map(|kind| weight(kind)).sum();
        let mut left = self.random.random_range(0..all.max(1));
        let kind = kinds.iter().find(|kind| match left.checked_sub(weight(kind)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        let host = self.random.random_range(0..self.instances);
        let ms = if self.one_in(8) { LONG_MS } else { self.random.random_range(0..10_000) };
        let pick = self.random.random_range(0..1_000);
        match kind.map_or("kill", String::as_str) {
            "oom" => Fault::Oom { host, pick },
            "agent" => Fault::Agent { host, ms: ms.min(20_000) },
            "wire" => Fault::Wire { host, how: self.one_of(&[Wire::Cut, Wire::Silent]), ms },
            "messages" => Fault::Wire { host, how: Wire::Bad(self.bad()), ms: ms + 5_000 },
            "engine" => Fault::Engine { host, killing: self.random.random(), ms: ms.min(20_000) },
            "slow" => Fault::SlowEngine { host, list_ms: self.random.random_range(200..4_000), ms },
            "crash" => Fault::Crash { ms: ms.min(5_000) },
            "commit" => {
                Fault::CrashAt { commits: self.random.random_range(0..6), durable: self.random.random(), ms: ms.min(5_000) }
            }
            "disk" => Fault::Disk { commits: self.random.random_range(1..6) },
            "clock" => Fault::Clock { by_ms: self.jump() },
            "host-clock" => Fault::HostClock { host, by_ms: self.jump() },
            "replace" => Fault::Replace { host, ms },
            _ => Fault::Kill { host, pick, containers: self.random.random_range(1..4) },
        }
    }

    fn bad(&mut self) -> Bad {
        let random = &mut self.random;
        let mut some = |most: u8| if random.random() { random.random_range(1..=most) } else { 0 };
        let (lose, twice, late) = (some(30), some(30), some(50));
        let slow_ms = if self.one_in(3) { self.random.random_range(100..2_000) } else { 0 };
        Bad {
            lose,
            twice,
            late,
            late_ms: self.random.random_range(10..3_000),
            slow_ms,
            seed: self.random.random_range(0..1 << 32),
        }
    }

    fn jump(&mut self) -> Millis {
        let most = self.one_of(&[500, 5_000, 60_000, 600_000]);
        let by = self.random.random_range(1..=most);
        if self.random.random() { by } else { -by }
    }
}
