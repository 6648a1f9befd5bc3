//! A task's volumes: binds of the host, volumes that live as long as the task, and shared ones.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};

use super::connect::{VOLUME, failed, failure, status};
use super::{DockerConfig, labels};
use crate::agent::engine::{ContainerSpec, EngineError};
use crate::model::TaskId;
use crate::model::definition::{DockerVolume, Volume};

/// Makes what the container mounts and says the mounts in Docker's `source:target[:ro]` form.
pub async fn binds(docker: &Docker, config: &DockerConfig, spec: &ContainerSpec) -> Result<Vec<String>, EngineError> {
    let mut binds = Vec::new();
    for mount in spec.container.mount_points.iter().flatten() {
        let (Some(name), Some(target)) = (&mount.source_volume, &mount.container_path) else { continue };
        let volume = spec
            .volumes
            .iter()
            .find(|v| v.name.as_ref() == Some(name))
            .ok_or_else(|| failure(VOLUME, format!("the task definition has no volume {name}")))?;
        let source = source(docker, config, spec, name, volume).await?;
        let mode = if mount.read_only == Some(true) { ":ro" } else { "" };
        binds.push(format!("{source}:{target}{mode}"));
    }
    Ok(binds)
}

async fn source(
    docker: &Docker,
    config: &DockerConfig,
    spec: &ContainerSpec,
    name: &str,
    volume: &Volume,
) -> Result<String, EngineError> {
    if let Some(path) = volume.host.as_ref().and_then(|h| h.source_path.as_deref()).filter(|p| !p.is_empty()) {
        return Ok(path.to_owned());
    }
    let plain = DockerVolume::default();
    let settings = volume.docker_volume_configuration.as_ref().unwrap_or(&plain);
    let mut marks: HashMap<String, String> = settings.labels.clone().unwrap_or_default().into_iter().collect();
    if settings.scope.as_deref() == Some("shared") {
        match docker.inspect_volume(name).await {
            Ok(_) => return Ok(name.to_owned()),
            Err(error) if status(&error) == Some(404) && settings.autoprovision == Some(true) => {}
            Err(error) => return Err(failed(VOLUME)(error)),
        }
        // Not marked as ours: it outlives the task and the agent, as on AWS.
        create(docker, name.to_owned(), settings, marks).await
    } else {
        marks.insert(labels::INSTALLATION.to_owned(), config.installation.clone());
        marks.insert(labels::TASK.to_owned(), spec.task.to_string());
        create(docker, labels::volume_name(&config.installation, spec, name), settings, marks).await
    }
}

/// Docker answers with the existing one when a volume of this name and driver is there.
async fn create(
    docker: &Docker,
    name: String,
    settings: &DockerVolume,
    marks: HashMap<String, String>,
) -> Result<String, EngineError> {
    let request = VolumeCreateRequest {
        name: Some(name),
        driver: settings.driver.clone(),
        driver_opts: settings.driver_opts.clone().map(|o| o.into_iter().collect()),
        labels: Some(marks),
        ..VolumeCreateRequest::default()
    };
    Ok(docker.create_volume(request).await.map_err(failed(VOLUME))?.name)
}

/// Removes the volumes that lived with the task.
pub async fn remove(docker: &Docker, config: &DockerConfig, task: &TaskId) -> Result<(), EngineError> {
    let marks = vec![format!("{}={}", labels::INSTALLATION, config.installation), format!("{}={task}", labels::TASK)];
    let options = ListVolumesOptionsBuilder::default().filters(&HashMap::from([("label", marks)])).build();
    let found = docker.list_volumes(Some(options)).await.map_err(failed(REMOVE))?;
    for volume in found.volumes.into_iter().flatten() {
        match docker.remove_volume(&volume.name, Some(RemoveVolumeOptionsBuilder::default().build())).await {
            Err(error) if status(&error) != Some(404) => return Err(failed(REMOVE)(error)),
            _ => {}
        }
    }
    Ok(())
}

const REMOVE: &str = "CannotRemoveVolumeError";
