//! Which kernel parameters a container may set: those of its own namespaces, as runc has it.

use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use crate::spec::{Linux, NamespaceKind};

/// Parameters of an IPC namespace besides `fs.mqueue.*`: ipc_namespaces(7).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Whether a parameter, with dots, is one of the network namespace.
pub fn is_network_parameter(name: &str) -> bool {
    name.starts_with("net.")
}

/// Whether a parameter, with dots, is one of the IPC namespace.
pub fn is_ipc_parameter(name: &str) -> bool {
    IPC.contains(&name) || name.starts_with("fs.mqueue.")
}

pub(super) fn validate(linux: &Linux) -> Result<()> {
    linux.sysctl.keys().try_for_each(|name| allow(linux, &with_dots(name)))
}

/// A parameter's name as sysctl(8) prints it. Where the first separator is a slash, slashes are the separators and
/// dots are part of a name: `net/ipv4/conf/eth0.1/forwarding`. So a slash in the result stands for a dot.
fn with_dots(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => swapped(name),
        _ => name.to_owned(),
    }
}

fn swapped(name: &str) -> String {
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

/// The file of a parameter, whichever way its name is written.
pub(crate) fn sysctl_file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(swapped(&with_dots(name)))
}

fn allow(linux: &Linux, name: &str) -> Result<()> {
    let refused = |reason| Err(Error::Sysctl { name: name.to_owned(), reason });
    let has = |kind| linux.namespace(kind).is_some();
    if name.split(['.', '/']).any(|part| part.is_empty() || part == "..") {
        return refused("not the name of a parameter");
    }
    if is_ipc_parameter(name) {
        return match has(NamespaceKind::Ipc) {
            true => Ok(()),
            false => refused("it is the host's, as the container has no ipc namespace"),
        };
    }
    if is_network_parameter(name) {
        return match has_own_network(linux)? {
            true => Ok(()),
            false => refused("it is the host's, as the container has no network namespace of its own"),
        };
    }
    match name {
        "kernel.hostname" => refused("use the configuration's hostname for it"),
        "kernel.domainname" if has(NamespaceKind::Uts) => Ok(()),
        "kernel.domainname" => refused("it is the host's, as the container has no uts namespace"),
        _ => refused("it belongs to no namespace, so it would be set for the whole machine"),
    }
}

/// Whether the container's network is another one than this process's: a namespace that is joined may well be the host's.
fn has_own_network(linux: &Linux) -> Result<bool> {
    let Some(namespace) = linux.namespace(NamespaceKind::Network) else { return Ok(false) };
    let Some(path) = &namespace.path else { return Ok(true) };
    let identity = |file: &Path| {
        let status = rustix::fs::stat(file).map_err(|errno| Error::Namespace {
            path: "linux.namespaces".to_owned(),
            value: file.to_owned(),
            errno,
        })?;
        Ok::<_, Error>((status.st_dev, status.st_ino))
    };
    Ok(identity(path)? != identity(Path::new("/proc/self/ns/net"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_as_good_as_dots() {
        assert_eq!(with_dots("net.ipv4.conf.eth0/1.forwarding"), "net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(with_dots("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(with_dots("kernel"), "kernel");
        for name in ["net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"] {
            assert_eq!(sysctl_file(name), Path::new("/proc/sys/net/ipv4/conf/eth0.1/forwarding"));
        }
    }
}
