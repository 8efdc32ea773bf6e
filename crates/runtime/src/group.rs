//! A container's control group: made by its monitor at a place that is written down first, found there by whoever comes later.
//!
//! Where the tree's root is not ours, a group's place depends on who asks: on the group that the asker itself is in. So it is decided once,
//! and `group.json` in the container's volatile directory tells it to those that stand elsewhere.

use std::path::Path;

use cgroup::{Choice, Group, Hierarchy, Limits, Place};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::request::{Oci, Request};
use crate::state;

const FILE: &str = "group.json";

/// What is in `group.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    version: u32,
    place: Place,
}

/// Makes the container's group with these limits, but for those of devices. None where there is none to be had and none is needed.
pub(crate) fn make(request: &Request, hierarchy: &Hierarchy, limits: &Limits) -> Result<Option<Group>> {
    if let Some(oci) = &request.oci {
        return make_as_configured(request, oci, hierarchy, limits);
    }
    let choice = Place::choose(hierarchy, request.cgroup_parent.as_deref(), &request.id)?;
    if let Choice::At(place) = &choice
        && !place.is_below_root()
    {
        // Before there is anything: if this process is killed at any moment, what it made is found.
        write(&request.state_directory, place)?;
    }
    Ok(Group::create_without_devices(hierarchy, choice, limits)?)
}

/// At `linux.cgroupsPath`, in every tree.
fn make_as_configured(
    request: &Request,
    _oci: &Oci,
    hierarchy: &Hierarchy,
    limits: &Limits,
) -> Result<Option<Group>> {
    let path = request.spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref());
    let choice = Place::of_path(hierarchy, path, &request.id)?;
    if let Choice::At(place) = &choice {
        write(&request.state_directory, place)?;
    }
    Ok(Group::create_everywhere(hierarchy, choice, limits)?)
}

fn write(state_directory: &Path, place: &Place) -> Result<()> {
    let written = Written { version: state::VERSION, place: place.clone() };
    state::write(&state_directory.join(FILE), &written)
}

/// Finds the group of the container `id`; none if it has none, or it is gone.
///
/// Without `group.json` it is where any process that looks for it would make it.
pub fn find(state_directory: &Path, parent: Option<&str>, id: &str) -> Result<Option<Group>> {
    let hierarchy = Hierarchy::detect()?;
    Ok(match read(state_directory)? {
        Some(place) => Group::open_at(&hierarchy, place)?,
        None => Group::open(&hierarchy, parent, id)?,
    })
}

/// Finds the group that `group.json` tells of; none if there is no such file, or it is gone.
pub fn find_written(state_directory: &Path) -> Result<Option<Group>> {
    match read(state_directory)? {
        Some(place) => Ok(Group::open_at(&Hierarchy::detect()?, place)?),
        None => Ok(None),
    }
}

/// Finds a group below the container's, which must exist.
pub fn below(state_directory: &Path, path: &str) -> Result<Group> {
    let missing = || cgroup::Error::Missing { path: path.into() };
    let place = read(state_directory)?.ok_or_else(missing)?.below(path)?;
    Ok(Group::open_at(&Hierarchy::detect()?, place)?.ok_or_else(missing)?)
}

fn read(state_directory: &Path) -> Result<Option<Place>> {
    let written = state::read(&state_directory.join(FILE), |written: &Written| written.version)?;
    Ok(written.map(|written| written.place))
}
