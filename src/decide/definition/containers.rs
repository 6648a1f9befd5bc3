//! One container's own members: names, memory, environment, health check, restart policy, logging.

use super::{Invalid, client};
use crate::model::definition::{ContainerDefinition, HealthCheck, LogConfiguration, RestartPolicy};

/// ContainerDefinition: "If using the Docker 20.10.0 or later daemon, a minimum of 6 MiB"; older ones 4, and 4 is what ECS
/// refuses below. `effective_containers` raises what is less than 6.
pub(super) const MIN_MEMORY_MIB: i32 = 4;

/// Docker's own maximum is 262,144 shares; ECS accepts 192 vCPUs on a task. A bound that no sum overflows.
pub(super) const MAX_CPU_UNITS: i32 = 262_144;

/// 16 TiB: a bound that no sum of ten containers overflows.
pub(super) const MAX_MEMORY_MIB: i32 = 16 * 1024 * 1024;

const MAX_IMAGE_LENGTH: usize = 255;

/// "Up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed."
pub(super) fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// `Invalid 'WHAT' setting for container 'NAME'.`, the form of the texts that are known.
pub(super) fn invalid_setting(what: &str, container: &ContainerDefinition) -> Invalid {
    client(format!("Invalid '{what}' setting for container '{}'.", container.name))
}

/// `Invalid setting for container 'NAME'. WHY`, the form of the text for a missing memory.
pub(super) fn invalid(container: &ContainerDefinition, why: &str) -> Invalid {
    client(format!("Invalid setting for container '{}'. {why}", container.name))
}

pub(super) fn check(container: &ContainerDefinition) -> Result<(), Invalid> {
    check_name_and_image(container)?;
    check_numbers(container)?;
    check_environment(container)?;
    check_health(container)?;
    check_restart(container)?;
    check_logging(container)
}

fn check_name_and_image(container: &ContainerDefinition) -> Result<(), Invalid> {
    if container.name.is_empty() {
        return Err(client("Container.name should not be null or empty."));
    }
    if !is_name(&container.name) {
        return Err(client("Container.name contains invalid characters."));
    }
    if container.image.is_empty() {
        return Err(client("Container.image should not be null or empty."));
    }
    // "Up to 255 letters, numbers, hyphens, underscores, colons, periods, forward slashes, and number signs are allowed."
    // A digest needs @ too.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_:./#@".contains(c);
    if container.image.len() > MAX_IMAGE_LENGTH || !container.image.chars().all(is_allowed) {
        return Err(client("Container.image contains invalid characters."));
    }
    Ok(())
}

fn check_numbers(container: &ContainerDefinition) -> Result<(), Invalid> {
    if container.cpu.is_some_and(|cpu| !(0..=MAX_CPU_UNITS).contains(&cpu)) {
        return Err(invalid_setting("cpu", container));
    }
    let bad_memory = |memory: Option<i32>| memory.is_some_and(|mib| !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&mib));
    if bad_memory(container.memory) {
        return Err(invalid_setting("memory", container));
    }
    if bad_memory(container.memory_reservation) {
        return Err(invalid_setting("memoryReservation", container));
    }
    // A day: bounds what an agent may be told to wait for.
    for (what, value) in [("startTimeout", container.start_timeout), ("stopTimeout", container.stop_timeout)] {
        if value.is_some_and(|seconds| !(0..=86_400).contains(&seconds)) {
            return Err(invalid_setting(what, container));
        }
    }
    Ok(())
}

fn check_environment(container: &ContainerDefinition) -> Result<(), Invalid> {
    for pair in container.environment.iter().flatten() {
        match pair.name.as_deref() {
            None | Some("") => {
                return Err(invalid(container, "The name of an environment variable should not be null or empty."));
            }
            // Docker reads NAME=VALUE: the rest of such a name would become part of the value.
            Some(name) if name.contains(['=', '\0']) => return Err(invalid_setting("environment", container)),
            Some(_) => {}
        }
        if pair.value.as_deref().is_some_and(|value| value.contains('\0')) {
            return Err(invalid_setting("environment", container));
        }
    }
    let secrets = container.secrets.iter().flatten();
    let options = container.log_configuration.iter().flat_map(|log| log.secret_options.iter().flatten());
    for secret in secrets.chain(options) {
        if secret.name.as_deref().is_none_or(str::is_empty) || secret.value_from.as_deref().is_none_or(str::is_empty) {
            return Err(invalid(container, "The name and valueFrom of a secret should not be null or empty."));
        }
    }
    // EnvironmentFile: "up to 10", type s3, "must use a .env file extension".
    let files = container.environment_files.as_deref().unwrap_or_default();
    let is_file = |value: &str| value.ends_with(".env");
    let is_valid = files.iter().all(|f| f.kind.as_deref() == Some("s3") && f.value.as_deref().is_some_and(is_file));
    if files.len() > 10 || !is_valid {
        return Err(invalid_setting("environmentFiles", container));
    }
    Ok(())
}

/// HealthCheck: interval 5 to 300 (default 30), timeout 2 to 60 (5), retries 1 to 10 (3), startPeriod 0 to 300 (off).
fn check_health(container: &ContainerDefinition) -> Result<(), Invalid> {
    let Some(HealthCheck { command, interval, timeout, retries, start_period }) = &container.health_check else {
        return Ok(());
    };
    match command.first().map(String::as_str) {
        Some("NONE") if command.len() == 1 => {}
        Some("CMD" | "CMD-SHELL") if command.len() > 1 => {}
        _ => return Err(invalid_setting("healthCheck.command", container)),
    }
    for (what, value, allowed) in [
        ("healthCheck.interval", interval, 5..=300),
        ("healthCheck.timeout", timeout, 2..=60),
        ("healthCheck.retries", retries, 1..=10),
        ("healthCheck.startPeriod", start_period, 0..=300),
    ] {
        if value.is_some_and(|value| !allowed.contains(&value)) {
            return Err(invalid_setting(what, container));
        }
    }
    Ok(())
}

/// ContainerRestartPolicy: "a minimum restartAttemptPeriod of 60 seconds and a maximum of 1800", "a maximum of 50 container exit
/// codes".
fn check_restart(container: &ContainerDefinition) -> Result<(), Invalid> {
    let Some(policy) = &container.restart_policy else { return Ok(()) };
    if policy.restart_attempt_period.is_some_and(|seconds| !(60..=1_800).contains(&seconds)) {
        return Err(invalid_setting("restartPolicy.restartAttemptPeriod", container));
    }
    if policy.ignored_exit_codes.as_ref().is_some_and(|codes| codes.len() > 50) {
        return Err(invalid_setting("restartPolicy.ignoredExitCodes", container));
    }
    Ok(())
}

fn check_logging(container: &ContainerDefinition) -> Result<(), Invalid> {
    let Some(LogConfiguration { log_driver, options, .. }) = &container.log_configuration else { return Ok(()) };
    if log_driver.is_empty() {
        return Err(invalid(container, "The log driver should not be null or empty."));
    }
    let option = |name: &str| options.as_ref().and_then(|o| o.get(name)).filter(|value| !value.is_empty());
    // ECS asks for awslogs-region too. Here it may be left out: a Beaufort answers for one region, so there is nothing to choose.
    if log_driver == "awslogs" && option("awslogs-group").is_none() {
        return Err(client("Log driver awslogs requires options: awslogs-region, awslogs-group"));
    }
    Ok(())
}

/// The defaults that DescribeTaskDefinition shows.
pub(super) fn fill(container: &mut ContainerDefinition) {
    container.cpu.get_or_insert(0);
    container.essential.get_or_insert(true);
    container.environment.get_or_insert_default();
    container.mount_points.get_or_insert_default();
    container.volumes_from.get_or_insert_default();
    container.system_controls.get_or_insert_default();
    if let Some(check) = &mut container.health_check
        && check.command.first().is_some_and(|kind| kind != "NONE")
    {
        check.interval.get_or_insert(30);
        check.timeout.get_or_insert(5);
        check.retries.get_or_insert(3);
    }
    if let Some(RestartPolicy { enabled: true, restart_attempt_period, .. }) = &mut container.restart_policy {
        restart_attempt_period.get_or_insert(300);
    }
}
