//! A run as a list of timed commands: what goes wrong, what clients ask for, and how loads change. All that a run depends on stands
//! here, so a script can be printed, saved, run again, and made smaller until nothing in it can be left out.

use std::fmt::Write as _;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::wire::Wire;
use crate::model::Millis;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Script {
    pub head: Head,
    /// By time.
    pub commands: Vec<Timed>,
}

/// The world that the commands happen in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub seed: u64,
    pub instances: usize,
    pub zones: usize,
    /// Of each instance: CPU units and MiB.
    pub cpu: u32,
    pub memory: u32,
    /// From here on nothing goes wrong any more.
    pub faults_ms: Millis,
    /// How long the world may take to come to rest after that.
    pub settle_ms: Millis,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Since the beginning.
    pub at: Millis,
    #[serde(rename = "do")]
    pub act: Act,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Fault(Fault),
    Call(Call),
    /// The service's tasks together use so many thousandths of a core.
    Load {
        service: String,
        millicores: u32,
    },
    /// Alertmanager says that an alert fires, or has been resolved.
    Alert {
        service: String,
        policy: String,
        firing: bool,
    },
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Some containers of a host die.
    Kill {
        host: usize,
        pick: u32,
        containers: u32,
    },
    /// The kernel takes one for its memory.
    Oom {
        host: usize,
        pick: u32,
    },
    /// The agent's process ends and comes back.
    Agent {
        host: usize,
        ms: Millis,
    },
    Wire {
        host: usize,
        how: Wire,
        ms: Millis,
    },
    /// The container engine cannot be reached, and may have taken its containers along.
    Engine {
        host: usize,
        killing: bool,
        ms: Millis,
    },
    /// Lists of containers are so old when they arrive.
    SlowEngine {
        host: usize,
        list_ms: Millis,
        ms: Millis,
    },
    /// The control plane dies and comes back.
    Crash {
        ms: Millis,
    },
    /// It dies at a commit, just before it is durable or just after.
    CrashAt {
        commits: u32,
        durable: bool,
        ms: Millis,
    },
    /// The disk refuses the next commits.
    Disk {
        commits: u32,
    },
    /// Somebody sets the control plane's time of day.
    Clock {
        by_ms: Millis,
    },
    HostClock {
        host: usize,
        by_ms: Millis,
    },
    /// A host is gone for good, and a new and empty one comes in its place.
    Replace {
        host: usize,
        ms: Millis,
    },
}

impl Fault {
    /// As `--faults` names them.
    pub const KINDS: [&str; 13] = [
        "kill",
        "oom",
        "agent",
        "wire",
        "messages",
        "engine",
        "slow",
        "crash",
        "commit",
        "disk",
        "clock",
        "host-clock",
        "replace",
    ];
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    Register {
        family: String,
        behaviour: String,
        awsvpc: bool,
        host_port: Option<u16>,
    },
    Create {
        service: String,
        family: String,
        desired: u32,
        minimum: u32,
        maximum: u32,
        awsvpc: bool,
    },
    Desire {
        service: String,
        desired: u32,
    },
    /// To the family's newest revision.
    Roll {
        service: String,
        family: String,
    },
    Delete {
        service: String,
    },
    RunTask {
        family: String,
        count: u32,
    },
    /// One of those that were run.
    StopTask {
        pick: u32,
    },
    Target {
        service: String,
        min: u32,
        max: u32,
    },
    /// Tracks this CPU utilization, in percent.
    Track {
        service: String,
        percent: u32,
    },
    /// Policies `out` and `in` for alerts.
    Steps {
        service: String,
    },
    Alarm {
        name: String,
        threshold: u32,
    },
    Unalarm {
        name: String,
    },
}

impl Call {
    pub fn family(&self) -> Option<&str> {
        match self {
            Call::Register { family, .. } => Some(family),
            _ => None,
        }
    }
}

impl Script {
    /// One line of JSON each: the head, then the commands.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Plain data: it can always be written.
        let line = |value: serde_json::Result<String>| value.unwrap_or_default();
        let _ = writeln!(text, "{}", line(serde_json::to_string(&self.head)));
        for command in &self.commands {
            let _ = writeln!(text, "{}", line(serde_json::to_string(command)));
        }
        text
    }

    /// Empty lines and lines that begin with `#` mean nothing.
    pub fn parse(text: &str) -> anyhow::Result<Script> {
        let meant = |(_, line): &(usize, &str)| !line.trim().is_empty() && !line.starts_with('#');
        let mut lines = text.lines().enumerate().filter(meant);
        let (n, head) =
            lines.next().context("the script is empty: its first line is its world, as `beaufort simulate` prints it")?;
        let head: Head = serde_json::from_str(head).with_context(|| format!("line {} is no head of a script", n + 1))?;
        let mut commands = Vec::new();
        for (n, line) in lines {
            let timed: Timed = serde_json::from_str(line).with_context(|| format!("line {} is no command", n + 1))?;
            timed.check(&head).with_context(|| format!("line {}", n + 1))?;
            commands.push(timed);
        }
        commands.sort_by_key(|command| command.at);
        Ok(Script { head, commands })
    }
}

impl Timed {
    fn check(&self, head: &Head) -> anyhow::Result<()> {
        let host = match self.act {
            Act::Fault(
                Fault::Kill { host, .. }
                | Fault::Oom { host, .. }
                | Fault::Agent { host, .. }
                | Fault::Wire { host, .. }
                | Fault::Engine { host, .. }
                | Fault::SlowEngine { host, .. }
                | Fault::HostClock { host, .. }
                | Fault::Replace { host, .. },
            ) => host,
            _ => 0,
        };
        anyhow::ensure!(host < head.instances, "host {host} is not there: the script has {} instances", head.instances);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let script = super::super::generate::script(7, &Default::default());
        assert!(script.commands.len() > 20);
        assert_eq!(Script::parse(&script.to_text()).unwrap(), script);
        let text = script.to_text();
        let head = text.lines().next().unwrap();
        for (line, told) in [
            ("{\"at\":1,\"do\":{\"fault\":{\"kill\":{\"host\":999,\"pick\":0,\"containers\":1}}}}", "host 999 is not there"),
            ("{\"at\":1}", "line 2 is no command"),
        ] {
            let error = Script::parse(&format!("{head}\n{line}\n")).unwrap_err();
            assert!(format!("{error:#}").contains(told), "{error:#}");
        }
        assert!(Script::parse("# nothing\n").is_err());
    }
}
