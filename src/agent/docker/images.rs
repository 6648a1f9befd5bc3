//! Images: pulled through Docker when they are not there, or made from our own static binary, so that the pause and demo containers
//! need no registry.

use std::io;
use std::path::Path;

use bollard::Docker;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptions};
use bytes::Bytes;
use futures_util::StreamExt;

use super::connect::{PULL, REMOVE, failed, failure, status};
use super::{jsonfile, labels};
use crate::agent::engine::{EngineError, Pulled};

pub async fn pull(docker: &Docker, image: &str) -> Result<Pulled, EngineError> {
    match docker.inspect_image(image).await {
        Ok(found) => return Ok(Pulled { digest: digest(found.repo_digests) }),
        Err(error) if status(&error) == Some(404) => {}
        Err(error) => return Err(failed(PULL)(error)),
    }
    // Docker pulls every tag of a reference that has none.
    let (name, tag) = split(image);
    let options = CreateImageOptionsBuilder::default().from_image(name).tag(tag).build();
    let mut progress = docker.create_image(Some(options), None, None);
    while let Some(step) = progress.next().await {
        let step = step.map_err(failed(PULL))?;
        if let Some(message) = step.error_detail.and_then(|e| e.message) {
            return Err(failure(PULL, message));
        }
    }
    let found = docker.inspect_image(image).await.map_err(failed(PULL))?;
    Ok(Pulled { digest: digest(found.repo_digests) })
}

/// The digest of the image's manifest in a registry; a local image has none.
pub fn digest(repo_digests: Option<Vec<String>>) -> Option<String> {
    repo_digests?.first()?.split_once('@').map(|(_, digest)| digest.to_owned())
}

/// Name and tag (or digest); `latest` where there is none. A colon before the last slash is a registry's port.
fn split(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

/// A hash of the binary's content, to know an image made from it.
pub async fn binary_hash(binary: &Path) -> Result<String, EngineError> {
    let bytes = read(binary).await?;
    Ok(format!("{:016x}", jsonfile::hash(&bytes)))
}

async fn read(binary: &Path) -> Result<Vec<u8>, EngineError> {
    let read = tokio::fs::read(binary).await;
    read.map_err(|error| failure(PULL, format!("cannot read our own binary {}: {error}", binary.display())))
}

/// An image FROM scratch with only our binary in it, as `/beaufort`. Made anew when it was made from another binary.
pub async fn ensure_own(
    docker: &Docker,
    installation: &str,
    reference: &str,
    binary: &Path,
    entrypoint: &[&str],
    command: &[&str],
) -> Result<(), EngineError> {
    let bytes = read(binary).await?;
    let json = |words: &[&str]| serde_json::to_string(words).expect("strings serialise");
    let settings = format!("{} {}", json(entrypoint), json(command));
    let mark = format!("{:016x}{:08x}", jsonfile::hash(&bytes), jsonfile::hash(settings.as_bytes()) as u32);
    let mut replaced = None;
    match docker.inspect_image(reference).await {
        Ok(image) => {
            let made_from = image.config.and_then(|c| c.labels).and_then(|l| l.get(labels::BINARY).cloned());
            if made_from.as_ref() == Some(&mark) {
                return Ok(());
            }
            replaced = image.id.filter(|_| made_from.is_some());
        }
        Err(error) if status(&error) == Some(404) => {}
        Err(error) => return Err(failed(PULL)(error)),
    }
    let archive = tokio::task::spawn_blocking(move || archive(&bytes)).await;
    let archive = archive
        .map_err(io::Error::other)
        .and_then(|made| made)
        .map_err(|error| failure(PULL, format!("cannot make an image of our own binary: {error}")))?;
    let (name, tag) = split(reference);
    let changes = vec![
        format!("ENTRYPOINT {}", json(entrypoint)),
        format!("CMD {}", json(command)),
        format!("LABEL {}={installation} {}={mark}", labels::INSTALLATION, labels::BINARY),
    ];
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(name).tag(tag).changes(changes).build();
    let mut progress = docker.create_image(Some(options), Some(bollard::body_full(archive)), None);
    while let Some(step) = progress.next().await {
        if let Some(message) = step.map_err(failed(PULL))?.error_detail.and_then(|e| e.message) {
            return Err(failure(PULL, message));
        }
    }
    if let Some(old) = replaced {
        // It was made of another binary of ours, and has lost its name. If it has another it is somebody's, and while a container
        // uses it Docker keeps it.
        let nameless = docker.inspect_image(&old).await.is_ok_and(|image| image.repo_tags.unwrap_or_default().is_empty());
        if nameless {
            let _ = docker.remove_image(&old, None::<RemoveImageOptions>, None).await;
        }
    }
    Ok(())
}

pub async fn remove(docker: &Docker, reference: &str) -> Result<(), EngineError> {
    match docker.remove_image(reference, None::<RemoveImageOptions>, None).await {
        Err(error) if status(&error) != Some(404) => Err(failed(REMOVE)(error)),
        _ => Ok(()),
    }
}

fn archive(binary: &[u8]) -> io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::with_capacity(binary.len() + 4096));
    let mut header = tar::Header::new_gnu();
    header.set_size(binary.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "beaufort", binary)?;
    // Programs expect to be able to write temporary files.
    let mut directory = tar::Header::new_gnu();
    directory.set_entry_type(tar::EntryType::Directory);
    directory.set_size(0);
    directory.set_mode(0o1777);
    archive.append_data(&mut directory, "tmp/", io::empty())?;
    Ok(archive.into_inner()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        assert_eq!(split("web"), ("web", "latest"));
        assert_eq!(split("registry:5000/web"), ("registry:5000/web", "latest"));
        assert_eq!(split("registry:5000/web:2"), ("registry:5000/web", "2"));
        assert_eq!(split("web@sha256:abc"), ("web", "sha256:abc"));
        assert_eq!(digest(Some(vec!["web@sha256:abc".into()])), Some("sha256:abc".into()));
        assert_eq!(digest(Some(vec![])), None);
    }
}
