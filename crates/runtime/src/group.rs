//! A container's control group: made by its monitor at a place that is written down first, found there by whoever comes later.
//!
//! Where the tree's root is not ours, a group's place depends on who asks: on the group that the asker itself is in. So it is decided once,
//! and `group.json` in the container's volatile directory tells it to those that stand elsewhere.

use std::path::Path;

use cgroup::{Choice, Description, Group, Hierarchy, Limits, Place, Unit};
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
    /// All about a group of systemd's, which the place does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<Description>,
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
        write(&request.state_directory, place, None)?;
    }
    Ok(Group::create_without_devices(hierarchy, choice, limits)?)
}

/// At `linux.cgroupsPath`, in every tree. None with the systemd driver: that group is made by [`make_unit`].
fn make_as_configured(
    request: &Request,
    oci: &Oci,
    hierarchy: &Hierarchy,
    limits: &Limits,
) -> Result<Option<Group>> {
    if oci.systemd_cgroup {
        return Ok(None);
    }
    let choice = Place::of_path(hierarchy, path_of(request), &request.id)?;
    if let Choice::At(place) = &choice {
        // What is written down is ours to remove, so it must be nobody else's.
        Group::check_unused(hierarchy, place)?;
        write(&request.state_directory, place, None)?;
    }
    // Where there can be no group, there is none for the rules that hold where nobody gave any.
    let resources = request.spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let has_own_rules = resources.is_some_and(|resources| !resources.devices.is_empty());
    let group = match choice {
        Choice::Nowhere { .. } if !has_own_rules => {
            Group::create_everywhere(hierarchy, choice, &Limits { devices: Vec::new(), ..limits.clone() })?
        }
        choice => Group::create_everywhere(hierarchy, choice, limits)?,
    };
    if group.is_none() && oci.needs_group {
        return Err(Group::none_delegated(hierarchy).into());
    }
    Ok(group)
}

/// With the systemd driver: has systemd make the unit that `linux.cgroupsPath` names, with the waiting process in it.
pub(crate) fn make_unit(
    request: &Request,
    hierarchy: &Hierarchy,
    pid: u32,
    limits: &Limits,
) -> Result<Option<Group>> {
    if !is_in_unit(request) {
        return Ok(None);
    }
    let unit = Unit::of_path(path_of(request), &request.id)?;
    let description = format!("container {}", request.id);
    let group = Group::create_in_unit(hierarchy, &unit, &description, pid, limits)?;
    let description = group.description();
    write(&request.state_directory, &description.place().clone(), Some(description))?;
    Ok(Some(group))
}

fn path_of(request: &Request) -> Option<&str> {
    request.spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref())
}

fn write(state_directory: &Path, place: &Place, description: Option<Description>) -> Result<()> {
    let written = Written { version: state::VERSION, place: place.clone(), description };
    state::write(&state_directory.join(FILE), &written)
}

/// Finds the group of the container `id`; none if it has none, or it is gone.
///
/// Without `group.json` it is where any process that looks for it would make it.
pub fn find(state_directory: &Path, parent: Option<&str>, id: &str) -> Result<Option<Group>> {
    let hierarchy = Hierarchy::detect()?;
    Ok(match read(state_directory)? {
        Some(written) => Group::open_at(&hierarchy, written.place)?,
        None => Group::open(&hierarchy, parent, id)?,
    })
}

/// Finds the group that `group.json` tells of; none if there is no such file, or it is gone.
pub fn find_written(state_directory: &Path) -> Result<Option<Group>> {
    let hierarchy = Hierarchy::detect()?;
    Ok(match read(state_directory)? {
        Some(Written { description: Some(description), .. }) => {
            Group::open_described(&hierarchy, &description)?
        }
        Some(written) => Group::open_at(&hierarchy, written.place)?,
        None => None,
    })
}

/// With the systemd driver: removes the unit that was made by a `create` which was killed before it could write that down.
pub fn remove_unwritten(request: &Request) -> Result<()> {
    if !is_in_unit(request) || request.state_directory.join(FILE).exists() {
        return Ok(());
    }
    Ok(Unit::of_path(path_of(request), &request.id)?.stop_if_empty()?)
}

fn is_in_unit(request: &Request) -> bool {
    request.oci.as_ref().is_some_and(|oci| oci.systemd_cgroup)
}

fn read(state_directory: &Path) -> Result<Option<Written>> {
    state::read(&state_directory.join(FILE), |written: &Written| written.version)
}
