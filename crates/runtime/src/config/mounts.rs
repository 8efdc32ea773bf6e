//! Rules of `mounts`: config.md, "Mounts".

use super::absolute;
use super::error::{Error, Result, Warning};
use crate::mount_options::{self, Options};
use crate::spec::{IdMapping, Linux, Mount, NamespaceKind};

pub(super) fn validate(mounts: &[Mount], linux: &Linux, warnings: &mut Vec<Warning>) -> Result<()> {
    for (place, mount) in mounts.iter().enumerate() {
        let path = |name: &str| format!("mounts[{place}].{name}");
        if mount.destination.as_os_str().is_empty() {
            return Err(Error::Missing {
                path: path("destination"),
                reason: "it is where the mount appears",
            });
        }
        if !mount.destination.is_absolute() {
            let value = mount.destination.display().to_string();
            let reason = "a relative path, taken as one from /; write it as absolute path";
            warnings.push(Warning { path: path("destination"), value, reason });
        }
        if mount.is_bind() && mount.source.is_empty() {
            return Err(Error::Missing { path: path("source"), reason: "it is what a bind mount shows" });
        }
        let options = mount_options::parse(&mount.options);
        if options.copy_up && mount.kind != "tmpfs" {
            let reason = "only a tmpfs can begin with a copy of what it hides";
            return Err(Error::Conflict { path: path("options"), value: "tmpcopyup".to_owned(), reason });
        }
        id_mapped(mount, &options, linux, &path)?;
    }
    Ok(())
}

fn id_mapped(mount: &Mount, options: &Options, linux: &Linux, path: &dyn Fn(&str) -> String) -> Result<()> {
    let lists = [("uidMappings", &mount.uid_mappings), ("gidMappings", &mount.gid_mappings)];
    let given = lists.iter().filter(|(_, list)| !list.is_empty()).count();
    if given == 0 && options.idmap.is_none() {
        return Ok(());
    }
    let value = || mount.destination.display().to_string();
    if !mount.is_bind() {
        let reason = "only bind mounts can show their files with other owners";
        return Err(Error::Conflict { path: path("uidMappings"), value: value(), reason });
    }
    absolute(&path("source"), std::path::Path::new(&mount.source))?;
    if given == 0 {
        // The container's own mappings are used.
        return super::needs(linux, NamespaceKind::User, &path("options"), "idmap");
    }
    for (name, list) in lists {
        if list.is_empty() {
            let reason = "a mount is mapped by both, uidMappings and gidMappings";
            return Err(Error::Missing { path: path(name), reason });
        }
        mappings(&path(name), list)?;
    }
    Ok(())
}

/// Ranges that the kernel takes: none empty, none past the last id, none over another.
pub(super) fn mappings(path: &str, list: &[IdMapping]) -> Result<()> {
    for (place, map) in list.iter().enumerate() {
        let shown = || format!("{} {} {}", map.container_id, map.host_id, map.size);
        let wrong =
            |reason| Err(Error::Malformed { path: format!("{path}[{place}]"), value: shown(), reason });
        let end = |first: u32, size: u32| u64::from(first) + u64::from(size);
        if map.size == 0 {
            return wrong("the range is empty");
        }
        if end(map.container_id.max(map.host_id), map.size) > u64::from(u32::MAX) {
            return wrong("the range goes past the last id, 4294967294");
        }
        let cross =
            |a: u32, a_size, b: u32, b_size| u64::from(a) < end(b, b_size) && u64::from(b) < end(a, a_size);
        let is_over = |other: &IdMapping| {
            cross(map.container_id, map.size, other.container_id, other.size)
                || cross(map.host_id, map.size, other.host_id, other.size)
        };
        if list[..place].iter().any(is_over) {
            return wrong("the range has ids of one before it");
        }
    }
    Ok(())
}
