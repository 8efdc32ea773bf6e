//! Device nodes, and who may use which.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use runtime::spec::{Device, DeviceRule};

use super::machine::Machine;
use crate::error::Result;
use crate::options::{Error as OptionError, status, unsupported};
use crate::spec::Spec;

const OPTION: &str = "--device";

/// Nodes besides those that every container has, and rules for all of them.
pub(super) struct Asked {
    pub nodes: Vec<Device>,
    pub rules: Vec<DeviceRule>,
}

/// What was asked, or everything for `--privileged`. The rules for the nodes that every container has are the runtime's.
pub(super) fn asked(spec: &Spec, machine: &Machine) -> Result<Asked> {
    if machine.uid != 0 && !spec.powers.device_rules.is_empty() {
        let reason = "it needs root; an ordinary user's container may open what that user may open";
        let instead = "leave it out, and name the device: --device PATH";
        return Err(unsupported("--device-cgroup-rule", "", reason, Some(instead)).into());
    }
    let all = |allow| DeviceRule { allow, access: Some("rwm".to_owned()), ..DeviceRule::default() };
    if spec.powers.privileged {
        return Ok(Asked { nodes: machine.devices.clone(), rules: vec![all(true)] });
    }
    let mut asked = Asked { nodes: Vec::new(), rules: vec![all(false), may_make("c"), may_make("b")] };
    for option in &spec.powers.devices {
        let nodes = nodes_of(&option.host, &option.inside)?;
        if nodes.is_empty() {
            let error = OptionError::Value {
                option: OPTION,
                value: option.host.display().to_string(),
                reason: "neither a device nor a directory with devices".to_owned(),
                accepted: Some("paths of devices, for example /dev/fuse".to_owned()),
            };
            return Err(error.into());
        }
        asked.rules.extend(nodes.iter().map(|node| may_use(node, &option.access)));
        asked.nodes.extend(nodes);
    }
    asked.rules.extend(spec.powers.device_rules.iter().cloned());
    Ok(asked)
}

/// Nodes can be made, which is no more than a name: opening them is another matter.
fn may_make(kind: &str) -> DeviceRule {
    let (kind, access) = (Some(kind.to_owned()), Some("m".to_owned()));
    DeviceRule { allow: true, kind, access, ..DeviceRule::default() }
}

fn may_use(node: &Device, access: &str) -> DeviceRule {
    DeviceRule {
        allow: true,
        kind: Some(node.kind.clone()),
        major: Some(node.major),
        minor: Some(node.minor),
        access: Some(access.to_owned()),
    }
}

/// The device at a path of the host, or all devices in a directory, as they shall appear at `inside`.
pub(super) fn nodes_of(host: &Path, inside: &Path) -> Result<Vec<Device>> {
    status(OPTION, host)?;
    let failed = |source| OptionError::File { option: OPTION, source };
    let status = fs_err::metadata(host).map_err(failed)?;
    if !status.is_dir() {
        return Ok(node(&status, inside).into_iter().collect());
    }
    let mut nodes = Vec::new();
    for entry in fs_err::read_dir(host).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Links are skipped: what they lead to is listed where it is. A node may go while this looks.
        let Ok(status) = fs_err::symlink_metadata(entry.path()) else { continue };
        let inside = inside.join(entry.file_name());
        if is_the_containers_own(&inside) {
            continue;
        }
        match status.is_dir() {
            true => nodes.extend(nodes_of(&entry.path(), &inside)?),
            false => nodes.extend(node(&status, &inside)),
        }
    }
    nodes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(nodes)
}

/// What the runtime puts into `/dev` itself, with other contents than the host's.
fn is_the_containers_own(path: &Path) -> bool {
    const NAMES: [&str; 8] = [
        "/dev/pts",
        "/dev/shm",
        "/dev/fd",
        "/dev/mqueue",
        "/dev/hugepages",
        "/dev/console",
        "/dev/ptmx",
        "/dev/core",
    ];
    NAMES.iter().any(|name| path == Path::new(name))
}

fn node(status: &std::fs::Metadata, inside: &Path) -> Option<Device> {
    let kind = status.file_type();
    let kind = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => "c",
        (_, true) => "b",
        _ => return None,
    };
    Some(Device {
        kind: kind.to_owned(),
        path: inside.to_owned(),
        major: rustix::fs::major(status.rdev()).into(),
        minor: rustix::fs::minor(status.rdev()).into(),
        file_mode: Some(status.mode() & 0o7777),
        uid: Some(status.uid()),
        gid: Some(status.gid()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_numbers_under_another_name() {
        let nodes = nodes_of("/dev/null".as_ref(), "/dev/nothing".as_ref()).unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].major, nodes[0].minor, nodes[0].kind.as_str()), (1, 3, "c"));
        assert_eq!(nodes[0].path, Path::new("/dev/nothing"));
    }

    #[test]
    fn a_directory_is_all_its_devices() {
        let nodes = nodes_of("/dev".as_ref(), "/dev".as_ref()).unwrap();
        assert!(nodes.iter().any(|node| node.path == Path::new("/dev/zero")));
        assert!(!nodes.iter().any(|node| node.path.starts_with("/dev/pts")));
        let error = nodes_of("/dev/nowhere".as_ref(), "/x".as_ref()).unwrap_err();
        assert!(error.to_string().contains("--device names: /dev/nowhere: No such file"), "{error}");
        assert!(nodes_of("/etc/passwd".as_ref(), "/x".as_ref()).unwrap().is_empty());
    }
}
