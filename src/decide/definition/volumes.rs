//! Volumes, and the mount points that use them.

use super::containers::{invalid, invalid_setting, is_name};
use super::{Invalid, MAX_VOLUMES, client};
use crate::model::definition::{ContainerDefinition, Volume};

pub(super) fn check(volumes: &[Volume], containers: &[ContainerDefinition]) -> Result<(), Invalid> {
    if volumes.len() > MAX_VOLUMES {
        return Err(client(format!("Too many volumes: at most {MAX_VOLUMES} can be specified.")));
    }
    for (at, volume) in volumes.iter().enumerate() {
        check_volume(volume)?;
        if volumes[..at].iter().any(|earlier| earlier.name == volume.name) {
            let name = volume.name.as_deref().unwrap_or("");
            return Err(client(format!("Volume name '{name}' is used multiple times in task.")));
        }
    }
    containers.iter().try_for_each(|container| check_mounts(container, volumes, containers))
}

fn check_volume(volume: &Volume) -> Result<(), Invalid> {
    let name = volume.name.as_deref().unwrap_or("");
    if name.is_empty() {
        return Err(client("Volume.name should not be null or empty."));
    }
    if !is_name(name) {
        return Err(client("Volume.name contains invalid characters."));
    }
    let bad = |what: &str| Err(client(format!("Invalid '{what}' setting for volume '{name}'.")));
    if volume.host.is_some() && volume.docker_volume_configuration.is_some() {
        return Err(client(format!("Only one volume type can be configured for volume '{name}'.")));
    }
    // Docker binds absolute paths only; empty is scratch space.
    let path = volume.host.as_ref().and_then(|host| host.source_path.as_deref()).unwrap_or("");
    if !path.is_empty() && !path.starts_with('/') {
        return bad("host.sourcePath");
    }
    let Some(docker) = &volume.docker_volume_configuration else { return Ok(()) };
    if docker.scope.as_deref().is_some_and(|scope| scope != "task" && scope != "shared") {
        return bad("dockerVolumeConfiguration.scope");
    }
    // DockerVolumeConfiguration: "autoprovision ... is only used if the scope is shared".
    if docker.autoprovision == Some(true) && docker.scope.as_deref() != Some("shared") {
        return bad("dockerVolumeConfiguration.autoprovision");
    }
    Ok(())
}

fn check_mounts(container: &ContainerDefinition, volumes: &[Volume], containers: &[ContainerDefinition]) -> Result<(), Invalid> {
    for mount in container.mount_points.iter().flatten() {
        let source = mount.source_volume.as_deref().unwrap_or("");
        if !volumes.iter().any(|volume| volume.name.as_deref() == Some(source)) {
            return Err(client(format!("Unknown volume '{source}'.")));
        }
        if !mount.container_path.as_deref().is_some_and(|path| path.starts_with('/')) {
            return Err(invalid_setting("mountPoints.containerPath", container));
        }
    }
    for from in container.volumes_from.iter().flatten() {
        let source = from.source_container.as_deref().unwrap_or("");
        if source == container.name || !containers.iter().any(|c| c.name == source) {
            return Err(invalid(container, &format!("The container '{source}' in volumesFrom is not another one of the task.")));
        }
    }
    Ok(())
}
