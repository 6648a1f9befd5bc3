//! dependsOn: known containers, known conditions, no circle.

use super::containers::{invalid, invalid_setting};
use super::{Invalid, client};
use crate::model::definition::ContainerDefinition;

pub(super) fn check(containers: &[ContainerDefinition]) -> Result<(), Invalid> {
    for container in containers {
        for dependency in container.depends_on.iter().flatten() {
            let name = &dependency.container_name;
            let Some(target) = containers.iter().find(|c| c.name == *name) else {
                return Err(invalid(container, &format!("The container '{name}' it depends on is not in the task definition.")));
            };
            match dependency.condition.as_str() {
                "START" => {}
                "HEALTHY" if target.health_check.as_ref().is_some_and(|check| !is_none(&check.command)) => {}
                // ContainerDependency: "HEALTHY: this condition requires that the dependent container has health checks configured".
                "HEALTHY" => {
                    return Err(client("A dependency container with HEALTHY condition must have a health check configured"));
                }
                "SUCCESS" | "COMPLETE" if target.is_essential() => {
                    return Err(client(
                        "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
                    ));
                }
                "SUCCESS" | "COMPLETE" => {}
                _ => return Err(invalid_setting("dependsOn.condition", container)),
            }
        }
    }
    match has_circle(containers) {
        // As ECS says of links.
        true => Err(client("Container dependencies should not have a cycle")),
        false => Ok(()),
    }
}

pub(super) fn is_none(command: &[String]) -> bool {
    command.first().is_none_or(|kind| kind == "NONE")
}

/// Takes away, again and again, containers that wait for none of those that are left; a circle is what cannot be taken.
fn has_circle(containers: &[ContainerDefinition]) -> bool {
    let mut left: Vec<&ContainerDefinition> = containers.iter().collect();
    loop {
        let waits = |c: &&ContainerDefinition| {
            c.depends_on.iter().flatten().any(|d| left.iter().any(|other| other.name == d.container_name))
        };
        let still: Vec<&ContainerDefinition> = left.iter().copied().filter(|c| waits(c)).collect();
        if still.len() == left.len() {
            return !still.is_empty();
        }
        left = still;
    }
}
