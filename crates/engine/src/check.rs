//! Looking over what is kept of containers: directories, names, and what they lead to.

use std::path::{Path, PathBuf};

use image::Store;
use runtime::request::RootFileSystem;

use crate::container::{self, Status, read_request};
use crate::error::Result;
use crate::roots::Roots;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// What.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it is mended now.
    pub is_mended: bool,
}

/// The directories of layers that containers which run, and images that are mounted to look into, are made of.
pub fn mounted_layers(roots: &Roots, store: &Store) -> Result<Vec<PathBuf>> {
    let mut layers = Vec::new();
    for container in container::list(roots)? {
        if matches!(container.status, Status::Running(_) | Status::Starting) {
            layers.extend(lower_of(&roots.containers().join(&container.record.id)));
        }
    }
    for image in crate::mounted::list(roots)? {
        layers.extend(store.inspect(&format!("sha256:{}", image.id), None)?.layers);
    }
    Ok(layers)
}

fn lower_of(directory: &Path) -> Vec<PathBuf> {
    match read_request(directory).map(|request| request.root) {
        Some(RootFileSystem::Overlays(overlays)) => {
            overlays.into_iter().flat_map(|overlay| overlay.lower).collect()
        }
        _ => Vec::new(),
    }
}

/// What is wrong with containers and their names; links that lead nowhere are removed where `repair` says so. What killed commands left
/// is removed first, as by every command.
pub fn check(roots: &Roots, store: &Store, repair: bool) -> Result<Vec<Flaw>> {
    let containers = container::list(roots)?;
    let mut flaws = Vec::new();
    for container in &containers {
        let record = &container.record;
        let object = format!("container {} ({})", record.name, container::short(&record.id));
        let mut note = |problem: String| {
            flaws.push(Flaw { object: object.clone(), problem, is_mended: false });
        };
        let directory = roots.containers().join(&record.id);
        if read_request(&directory).is_none() {
            note("its request.json is not here or cannot be read: remove it by coracle rm".to_owned());
        }
        for layer in lower_of(&directory).iter().filter(|layer| !layer.exists()) {
            note(format!("its layer {} is not here: remove it by coracle rm", layer.display()));
        }
        if let Some(id) = &record.image_id
            && record.image != "host"
            && store.inspect(id, None).is_err()
        {
            note(format!("its image {} is not here", record.image));
        }
        let name = roots.names().join(&record.name);
        if !fs_err::read_link(&name).is_ok_and(|target| target == Path::new(&record.id)) {
            note("its name does not lead to it: use its id".to_owned());
        }
    }
    for entry in fs_err::read_dir(roots.names())? {
        let path = entry?.path();
        let target = fs_err::read_link(&path).unwrap_or_default();
        if containers.iter().any(|container| Path::new(&container.record.id) == target)
            || roots.containers().join(&target).join("lock").exists()
        {
            continue;
        }
        if repair {
            fs_err::remove_file(&path)?;
        }
        let object = format!("container name {}", path.file_name().unwrap_or_default().to_string_lossy());
        flaws.push(Flaw { object, problem: "it leads to no container".to_owned(), is_mended: repair });
    }
    Ok(flaws)
}
