//! What is handed down to the container runtime: ulimits, capabilities, devices, tmpfs, swap, sysctls.

use super::Invalid;
use super::containers::{invalid, invalid_setting};
use crate::model::definition::{Capabilities, ContainerDefinition, LinuxParameters};

/// Ulimit: "The type of the ulimit".
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// KernelCapabilities: "Valid values", plus those that Linux learned since.
const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

pub(super) fn check(container: &ContainerDefinition) -> Result<(), Invalid> {
    for ulimit in container.ulimits.iter().flatten() {
        if !ULIMITS.contains(&ulimit.name.as_str()) {
            return Err(invalid_setting("ulimits.name", container));
        }
        // -1 is without limit.
        let (soft, hard) = (ulimit.soft_limit, ulimit.hard_limit);
        if soft < -1 || hard < -1 || (hard != -1 && (soft == -1 || soft > hard)) {
            return Err(invalid(
                container,
                &format!("The soft limit of ulimit '{}' must not exceed its hard limit.", ulimit.name),
            ));
        }
    }
    for control in container.system_controls.iter().flatten() {
        if control.namespace.as_deref().is_none_or(str::is_empty) || control.value.is_none() {
            return Err(invalid_setting("systemControls", container));
        }
    }
    container.linux_parameters.as_ref().map_or(Ok(()), |linux| check_linux(container, linux))
}

fn check_linux(container: &ContainerDefinition, linux: &LinuxParameters) -> Result<(), Invalid> {
    if let Some(Capabilities { add, drop }) = &linux.capabilities {
        for capability in add.iter().chain(drop).flatten() {
            // Written plainly, without CAP_.
            if !CAPABILITIES.contains(&capability.as_str()) {
                return Err(invalid(container, &format!("The capability '{capability}' is not valid.")));
            }
        }
    }
    for device in linux.devices.iter().flatten() {
        let permissions = device.permissions.iter().flatten();
        let known = |p: &String| matches!(p.as_str(), "read" | "write" | "mknod");
        if device.host_path.as_deref().is_none_or(str::is_empty) || !permissions.into_iter().all(known) {
            return Err(invalid_setting("linuxParameters.devices", container));
        }
    }
    for tmpfs in linux.tmpfs.iter().flatten() {
        let is_path = tmpfs.container_path.as_deref().is_some_and(|path| path.starts_with('/'));
        if !is_path || tmpfs.size.is_none_or(|mib| mib <= 0) {
            return Err(invalid_setting("linuxParameters.tmpfs", container));
        }
    }
    let outside = |value: Option<i32>, allowed: std::ops::RangeInclusive<i32>| value.is_some_and(|v| !allowed.contains(&v));
    for (what, wrong) in [
        ("linuxParameters.sharedMemorySize", outside(linux.shared_memory_size, 1..=i32::MAX)),
        // "If a value of 0 is specified, the container doesn't use swap."
        ("linuxParameters.maxSwap", outside(linux.max_swap, 0..=i32::MAX)),
        ("linuxParameters.swappiness", outside(linux.swappiness, 0..=100)),
    ] {
        if wrong {
            return Err(invalid_setting(what, container));
        }
    }
    // "If a value is not specified for maxSwap then [swappiness] is ignored", and Docker cannot swap without a memory limit.
    if linux.max_swap.is_some() && container.memory.is_none() {
        return Err(invalid(container, "'linuxParameters.maxSwap' requires 'memory' to be specified."));
    }
    Ok(())
}
