//! In which form this process can unpack layers: it follows from who we are and is part of a layer's key.

use std::fmt;

use crate::error::Result;

/// Whether files of layers get the owners that the image says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Yes: root, or root of a user namespace with a range of ids.
    Real,
    /// No: only one id is ours, so it owns all; the true owners are kept in the layer's manifest.
    Squashed,
}

/// How layers are unpacked. Layers of different forms are different directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) ownership: Ownership,
    /// Overlayfs's marks are `user.overlay.*`, as a mount in a user namespace wants them, not `trusted.overlay.*`; and device
    /// nodes cannot be made.
    pub(crate) in_user_namespace: bool,
}

impl Form {
    /// The form that fits this process: user_namespaces(7), `/proc/self/uid_map`.
    pub(crate) fn of_this_process() -> Result<Self> {
        let ids = |path: &str| -> Result<u64> { Ok(mapped_ids(&fs_err::read_to_string(path)?)) };
        let uids = ids("/proc/self/uid_map")?;
        let gids = ids("/proc/self/gid_map")?;
        let is_root = rustix::process::geteuid().is_root();
        let ownership = if is_root && uids > 1 && gids > 1 { Ownership::Real } else { Ownership::Squashed };
        // The first user namespace maps every id but -1.
        let is_first = uids >= u64::from(u32::MAX);
        Ok(Self { ownership, in_user_namespace: !(is_root && is_first) })
    }

    /// The extended attribute that makes a directory hide the layers below.
    pub(crate) fn opaque_xattr(self) -> &'static str {
        if self.in_user_namespace { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
    }

    /// The owner that a file gets here.
    pub(crate) fn owner(self, uid: u32, gid: u32) -> (u32, u32) {
        match self.ownership {
            Ownership::Real => (uid, gid),
            Ownership::Squashed => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        }
    }

    /// Whether an extended attribute of an image is set on the file. Security labels belong to the host's policy, and in a
    /// user namespace the kernel gives `trusted.*` to nobody; both are kept in the layer's manifest only.
    pub(crate) fn takes_xattr(self, name: &[u8]) -> bool {
        let is_label =
            matches!(name, b"security.selinux" | b"security.ima" | b"security.evm" | b"security.apparmor");
        !(is_label || self.in_user_namespace && name.starts_with(b"trusted."))
    }
}

/// The part of a layer's key.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.ownership, self.in_user_namespace) {
            (Ownership::Real, false) => "real",
            (Ownership::Real, true) => "user",
            (Ownership::Squashed, false) => "squashed-root",
            (Ownership::Squashed, true) => "squashed",
        })
    }
}

/// How many ids a map gives: the sum of the third column.
fn mapped_ids(map: &str) -> u64 {
    map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_mapped_ids() {
        assert_eq!(super::mapped_ids("         0          0 4294967295\n"), u64::from(u32::MAX));
        assert_eq!(super::mapped_ids("0 1000 1\n1 100000 65536\n"), 65537);
        assert_eq!(super::mapped_ids(""), 0);
    }
}
