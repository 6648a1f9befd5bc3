//! How a simulated container behaves, said in its image's name or in its environment: parts joined by `+`, each a word, perhaps a
//! value after `:` and a time after `@`. `sim/exit:1@2s`, `sim/health@3s+log:10`, `sim/fail-pull`, `sim/stubborn+start@500ms`.

use crate::model::Millis;
use crate::model::definition::ContainerDefinition;
use crate::model::task::Health;

/// Read before the image's name, when a container's environment has it.
pub const VARIABLE: &str = "SIM";

#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    pub fail_pull: bool,
    pub fail_create: bool,
    pub fail_start: bool,
    pub pull_ms: Millis,
    pub start_ms: Millis,
    /// Ends by itself with this code, so long after each start.
    pub exit: Option<(i32, Millis)>,
    /// Killed for its memory when it exits by itself.
    pub oom: bool,
    /// Becomes this so long after each start, when its definition has a health check.
    pub health: Option<(Health, Millis)>,
    /// Does not heed SIGTERM.
    pub stubborn: bool,
    pub lines_per_second: u32,
    pub cpu_cores: f64,
    pub memory_bytes: u64,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            fail_pull: false,
            fail_create: false,
            fail_start: false,
            pull_ms: 0,
            start_ms: 0,
            exit: None,
            oom: false,
            health: None,
            stubborn: false,
            lines_per_second: 0,
            cpu_cores: 0.01,
            memory_bytes: 16 << 20,
        }
    }
}

/// Of an image alone, before there is a container.
pub fn of_image(image: &str) -> Behaviour {
    let name = image.rsplit_once("sim/").map_or("", |(_, name)| name);
    parse(name)
}

pub fn of(container: &ContainerDefinition) -> Behaviour {
    let variable = container.environment.iter().flatten().find(|pair| pair.name.as_deref() == Some(VARIABLE));
    match variable.and_then(|pair| pair.value.as_deref()) {
        Some(text) => parse(text),
        None => of_image(&container.image),
    }
}

/// Words it does not know mean nothing: a simulated host can be given any image.
fn parse(text: &str) -> Behaviour {
    let mut behaviour = Behaviour::default();
    for part in text.split('+') {
        let (head, at) = part.split_once('@').map_or((part, 0), |(head, time)| (head, millis(time)));
        let (word, value) = head.split_once(':').unwrap_or((head, ""));
        match word {
            "fail-pull" => behaviour.fail_pull = true,
            "fail-create" => behaviour.fail_create = true,
            "fail-start" => behaviour.fail_start = true,
            "pull" => behaviour.pull_ms = at,
            "start" => behaviour.start_ms = at,
            "exit" => behaviour.exit = Some((value.parse().unwrap_or(0), at)),
            "oom" => {
                behaviour.exit = Some((137, at));
                behaviour.oom = true;
            }
            "health" => behaviour.health = Some((Health::Healthy, at)),
            "unhealthy" => behaviour.health = Some((Health::Unhealthy, at)),
            "stubborn" => behaviour.stubborn = true,
            "log" => behaviour.lines_per_second = value.parse().unwrap_or(1),
            "cpu" => behaviour.cpu_cores = value.parse().unwrap_or(behaviour.cpu_cores),
            "memory" => behaviour.memory_bytes = value.parse::<u64>().unwrap_or(16) << 20,
            _ => {}
        }
    }
    behaviour
}

fn millis(text: &str) -> Millis {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or(text), 1_000),
    };
    number.parse::<Millis>().unwrap_or(0) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_say_what_they_do() {
        let plain = Behaviour::default;
        let cases = [
            ("sim/ok", plain()),
            ("nginx:latest", plain()),
            ("sim/exit:1@2s", Behaviour { exit: Some((1, 2_000)), ..plain() }),
            ("registry/sim/fail-pull", Behaviour { fail_pull: true, ..plain() }),
            (
                "sim/health@3s+start@500ms+stubborn",
                Behaviour { health: Some((Health::Healthy, 3_000)), start_ms: 500, stubborn: true, ..plain() },
            ),
            ("sim/log:10+cpu:0.5", Behaviour { lines_per_second: 10, cpu_cores: 0.5, ..plain() }),
        ];
        for (image, expect) in cases {
            assert_eq!(of_image(image), expect, "{image}");
        }
    }
}
