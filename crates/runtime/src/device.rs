//! `/dev` of a container: the nodes that the runtime specification promises, those that were asked for, and the links.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kernel::mount::{At, OpenTree, move_mount, open_tree};
use kernel::record::{Chapter, because};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::root::{NewRoot, link_if_absent, own};
use crate::spec::Device;

/// The nodes of runtime-spec `config-linux.md`, "Default Devices": path, major, minor.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links of the same section, and ptmx: the one of the container's own devpts.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
];

const STEP: &str = "cannot make a device node";

/// Makes all nodes and links. With `bind` the host's nodes are mounted instead of made, as a user namespace may not make any.
pub fn make_all(root: &NewRoot, asked: &[Device], bind: bool) -> Result<()> {
    for (path, major, minor) in DEFAULT {
        let is_asked = asked.iter().any(|device| device.path == Path::new(path));
        if !is_asked {
            let device = Device {
                kind: "c".to_owned(),
                path: PathBuf::from(path),
                major: major.into(),
                minor: minor.into(),
                file_mode: Some(0o666),
                uid: Some(0),
                gid: Some(0),
            };
            make(root, &device, bind)?;
        }
    }
    asked.iter().try_for_each(|device| make(root, device, bind))?;
    LINKS.iter().try_for_each(|(target, path)| link_if_absent(root, target, Path::new(path)))
}

fn make(root: &NewRoot, device: &Device, bind: bool) -> Result<()> {
    because(Chapter::RootFileSystem, "a device that programs expect; /dev holds nothing else");
    let (parent, name) = root.parent_of(&device.path)?;
    if bind && device.kind != "p" {
        return bind_node(&parent, &name, device);
    }
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => {
            let reason = "the type of a device is c, b, u or p".to_owned();
            return Err(Error::Configuration { what: "device type", value: other.to_owned(), reason });
        }
    };
    let name_c = std::ffi::CString::new(name.as_os_str().as_bytes()).unwrap_or_default();
    let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
    let made =
        kernel::fs::mknodat(parent.as_fd(), &name_c, kind, mode, device.major as u32, device.minor as u32);
    match made {
        Err(error) if error.errno() == Errno::EXIST => return is_same_node(&parent, &name, device),
        other => other.in_step(STEP)?,
    }
    match (device.uid.unwrap_or(0), device.gid.unwrap_or(0)) {
        (0, 0) => Ok(()),
        (uid, gid) => own(&parent, &name, uid, gid),
    }
}

/// A node that is already there (a bind mount of the host's `/dev`) must be the one asked for.
fn is_same_node(parent: &OwnedFd, name: &Path, device: &Device) -> Result<()> {
    let failed = |errno| kernel::Error::new("mknodat", device.path.display().to_string(), errno);
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let status = rustix::fs::statat(parent, name, flags).map_err(failed).in_step(STEP)?;
    let number = rustix::fs::makedev(device.major as u32, device.minor as u32);
    let kind = if device.kind == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
    let is_same = match device.kind.as_str() {
        "p" => FileType::from_raw_mode(status.st_mode) == FileType::Fifo,
        _ => status.st_rdev == number && FileType::from_raw_mode(status.st_mode) == kind,
    };
    if is_same { Ok(()) } else { Err(failed(Errno::EXIST)).in_step(STEP) }
}

fn bind_node(parent: &OwnedFd, name: &Path, device: &Device) -> Result<()> {
    let failed = |errno| kernel::Error::new("openat", device.path.display().to_string(), errno);
    let target = NewRoot::node_to_cover(parent, name, 0o666).map_err(failed).in_step(STEP)?;
    let source = host_node(device);
    let tree = open_tree(At::path(&source), OpenTree::CLONE).in_step(STEP)?;
    let path = device.path.display().to_string();
    move_mount(tree.as_fd(), &path, At::fd(target.as_fd(), &path)).in_step(STEP)
}

/// Where the host keeps a node of this number: the path asked for when it is the same node, else the kernel's index.
fn host_node(device: &Device) -> PathBuf {
    let number = rustix::fs::makedev(device.major as u32, device.minor as u32);
    match rustix::fs::stat(&device.path) {
        Ok(status) if status.st_rdev == number => device.path.clone(),
        _ => {
            let class = if device.kind == "b" { "block" } else { "char" };
            let index = format!("/sys/dev/{class}/{}:{}/uevent", device.major, device.minor);
            let text = fs_err::read_to_string(index).unwrap_or_default();
            let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
            name.map_or_else(|| device.path.clone(), |name| Path::new("/dev").join(name))
        }
    }
}
