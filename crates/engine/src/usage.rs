//! What containers take of the disk, and taking those away that have ended.

use image::DiskUsage;

use crate::container::{self, Container, Status};
use crate::error::Result;
use crate::roots::Roots;

/// A container and the bytes of the disk that its directory takes, with all that it has changed.
pub fn of_containers(roots: &Roots) -> Result<Vec<(Container, u64)>> {
    let mut usage = DiskUsage::default();
    let containers = container::list(roots)?;
    let measure = |container: Container| {
        let bytes = usage.of(&roots.containers().join(&container.record.id))?;
        Ok((container, bytes))
    };
    containers.into_iter().map(measure).collect()
}

/// Whether a container has ended.
pub fn is_over(container: &Container) -> bool {
    matches!(container.status, Status::Ended(_) | Status::Lost)
}

/// Removes the containers that have ended and that `wanted` accepts; gives their ids and the bytes of the disk that they took.
pub fn prune(roots: &Roots, wanted: impl Fn(&Container) -> bool) -> Result<(Vec<String>, u64)> {
    let (mut ids, mut reclaimed) = (Vec::new(), 0);
    for (container, bytes) in of_containers(roots)? {
        if is_over(&container) && wanted(&container) {
            container::remove(roots, &container.record.id, false)?;
            ids.push(container.record.id);
            reclaimed += bytes;
        }
    }
    Ok((ids, reclaimed))
}
