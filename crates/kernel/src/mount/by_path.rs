//! Mounts by mount(2) alone, for where the filter of an outer container denies the descriptor-based calls, or the kernel has not all of them.
//!
//! A detached mount is imitated by one that is attached where no path leads: on a file system in memory, the stage, which lies below the new
//! root and, when that has become the root, over it. From there it is moved to its place. So a mount is finished before it is seen, as
//! otherwise, and both ends are what was opened before: mount(2) takes names, and each is the number of a descriptor in this process's own
//! `/proc/self/fd`, which was opened while the host's `/proc` was in view and which no image can fake.
//!
//! What mount(2) cannot do is refused with `ENOSYS`: owners shown differently, and a copy into another mount namespace.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::{At, Change, MountAttributes, MountFlags, OpenTree, Setting, mount, unmount_detached};
use crate::raw::check;
use crate::{Error, Result};

/// The stage of this process, if it has one: then all mounts are made by it.
static STAGE: RwLock<Option<Arc<Stage>>> = RwLock::new(None);

pub(super) fn stage() -> Option<Arc<Stage>> {
    STAGE.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set_stage(stage: Stage) {
    *STAGE.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(stage));
}

/// Whether this process mounts by mount(2) alone.
pub fn is_in_use() -> bool {
    stage().is_some()
}

/// Whether a filter around this process denies one of the calls that a container's mounts are made with. They hang together, so with one of
/// them denied none is used. To be asked by who has CAP_SYS_ADMIN: to others the kernel itself denies them.
///
/// Only a filter is looked for: every kernel that is supported has them all.
pub fn is_needed() -> bool {
    const CALLS: [libc::c_long; 7] = [
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
    ];
    let is_denied = |call: libc::c_long| {
        // SAFETY: no pointer among them is one that can be read or written, and flags (third or fifth), descriptor or name (first) are none
        // that there is: nothing happens.
        let asked = check(unsafe { libc::syscall(call, -1_i64, 0_i64, -1_i64, 0_i64, -1_i64) });
        matches!(asked, Err(Errno::NOSYS | Errno::PERM))
    };
    crate::identity::is_filtered() && CALLS.into_iter().any(is_denied)
}

/// Makes the stage at a directory of the host, which the new root is going to cover, and gives the directory that it covers itself. From now
/// on all mounts are made by mount(2).
///
/// The mounts there must not be shared, and `/proc` be the host's.
pub fn begin(place: &Path) -> Result<OwnedFd> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::new("open", path.display().to_string(), errno))
    };
    let descriptors = open(Path::new("/proc/self/fd"))?;
    let covered = open(place)?;
    mount("tmpfs", place, "tmpfs", as_flags(Stage::ATTRIBUTES), Stage::MODE)?;
    // A recursive copy of what the stage covers is then one without it.
    mount("", place, "", MountFlags::UNBINDABLE, "")?;
    set_stage(Stage { directory: open(place)?, descriptors, places: AtomicU32::new(0) });
    Ok(covered)
}

/// Makes another stage, over the root that this process is about to have; the first stays behind with the old one. What was not moved from
/// there is lost.
///
/// Until [`end`] a path of that root must not have `..` in it: from its top directory that leads upwards, to the stage.
pub fn move_to(root: BorrowedFd<'_>) -> Result<()> {
    let Some(stage) = stage() else { return Ok(()) };
    let descriptors =
        stage.descriptors.try_clone().map_err(|_| Error::new("dup", "/proc/self/fd", Errno::MFILE))?;
    let directory =
        stage.new_file_system("tmpfs", "tmpfs", &[Setting::String("mode", "0700")], Stage::ATTRIBUTES)?;
    stage.attach(directory.as_fd(), At::fd(root, "the new root"))?;
    set_stage(Stage { directory, descriptors, places: AtomicU32::new(0) });
    Ok(())
}

/// Takes the stage away. Nothing can be mounted afterwards, but what is mounted can be changed.
pub fn end() -> Result<()> {
    let Some(stage) = stage() else { return Ok(()) };
    stage.beside_descriptors(|| unmount_detached(&number(stage.directory.as_fd())))
}

/// A file system in memory, with a file or directory for each mount that is not in its place yet.
#[derive(Debug)]
pub(super) struct Stage {
    directory: OwnedFd,
    /// This process's `/proc/self/fd`.
    descriptors: OwnedFd,
    /// How many places there are on it.
    places: AtomicU32,
}

/// An open file's name among the descriptors.
fn number(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(file.as_raw_fd().to_string())
}

impl Stage {
    const ATTRIBUTES: MountAttributes =
        MountAttributes::NOSUID.union(MountAttributes::NODEV).union(MountAttributes::NOEXEC);
    const MODE: &str = "mode=0700";

    /// Runs a call whose paths are numbers of descriptors.
    fn beside_descriptors<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let failed = |errno| Error::new("fchdir", "/proc/self/fd", errno);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let before = rustix::fs::open(".", flags, Mode::empty()).map_err(failed)?;
        rustix::process::fchdir(&self.descriptors).map_err(failed)?;
        let called = call();
        rustix::process::fchdir(&before).map_err(failed)?;
        called
    }

    /// mount(2) of what is open at what is open.
    fn mount(&self, source: &Path, target: BorrowedFd<'_>, flags: MountFlags, shown: &str) -> Result<()> {
        let source = source.to_string_lossy();
        self.beside_descriptors(|| mount(&source, &number(target), "", flags, ""))
            .map_err(|error| Error::new("mount", shown, error.errno()))
    }

    /// A new place to mount on, a directory or a file, and its name.
    fn place(&self, is_directory: bool) -> std::result::Result<(OwnedFd, PathBuf), Errno> {
        let name = PathBuf::from(self.places.fetch_add(1, Ordering::Relaxed).to_string());
        if is_directory {
            mkdirat(&self.directory, &name, Mode::from(0o700))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&self.directory, &name, flags, Mode::from(0o600))?;
        }
        Ok((self.open(&name)?, name))
    }

    /// What is on the stage under this name: the mount, where one was made there.
    fn open(&self, name: &Path) -> std::result::Result<OwnedFd, Errno> {
        openat(&self.directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// As open_tree(2) with `OPEN_TREE_CLONE`.
    pub(super) fn copy(&self, at: At<'_>, flags: OpenTree) -> Result<OwnedFd> {
        let failed = |errno| Error::new("open_tree", at.shown(), errno);
        let source = opened(at).map_err(failed)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&source).map_err(failed)?.st_mode);
        let (place, name) = self.place(kind == FileType::Directory).map_err(failed)?;
        let depth = if flags.contains(OpenTree::RECURSIVE) { MountFlags::REC } else { MountFlags::empty() };
        self.mount(&number(source.as_fd()), place.as_fd(), MountFlags::BIND | depth, &at.shown())?;
        self.open(&name).map_err(failed)
    }

    /// As move_mount(2).
    pub(super) fn attach(&self, from: BorrowedFd<'_>, to: At<'_>) -> Result<()> {
        let target = opened(to).map_err(|errno| Error::new("move_mount", to.shown(), errno))?;
        self.mount(&number(from), target.as_fd(), MountFlags::MOVE, &to.shown())
    }

    /// As fsopen(2), fsconfig(2) and fsmount(2).
    pub(super) fn new_file_system(
        &self,
        kind: &str,
        source: &str,
        settings: &[Setting<'_>],
        attributes: MountAttributes,
    ) -> Result<OwnedFd> {
        let failed = |errno| Error::new("mount", kind, errno);
        let (place, name) = self.place(true).map_err(failed)?;
        let (superblock, data) = as_options(settings);
        // Read-only by mount(2) is the file system itself. One in memory is still to be filled; of another it is the mount that counts in
        // a user namespace, which gets none that can be written to where the host's can not.
        let later =
            if kind == "tmpfs" { attributes & MountAttributes::RDONLY } else { MountAttributes::empty() };
        let flags = superblock | as_flags(attributes - later);
        self.beside_descriptors(|| mount(source, &number(place.as_fd()), kind, flags, &data))
            .map_err(|error| failed(error.errno()))?;
        let tree = self.open(&name).map_err(failed)?;
        if !later.is_empty() {
            self.change(At::fd(tree.as_fd(), kind), Change { set: later, ..Change::default() })?;
        }
        Ok(tree)
    }

    /// As fspick(2) and fsconfig(2).
    pub(super) fn reconfigure(&self, at: At<'_>, settings: &[Setting<'_>]) -> Result<()> {
        let failed = |errno| Error::new("mount", at.shown(), errno);
        let target = opened(at).map_err(failed)?;
        let (superblock, data) = as_options(settings);
        let mut there = attributes_of(&target).map_err(failed)?;
        if settings.iter().any(|setting| matches!(setting, Setting::Flag("rw"))) {
            there.remove(MountAttributes::RDONLY);
        }
        let flags = MountFlags::REMOUNT | superblock | as_flags(there);
        self.beside_descriptors(|| mount("", &number(target.as_fd()), "", flags, &data))
            .map_err(|error| failed(error.errno()))
    }

    /// As mount_setattr(2).
    pub(super) fn change(&self, at: At<'_>, change: Change<'_>) -> Result<()> {
        let failed = |errno| Error::new("mount", at.shown(), errno);
        if change.user_namespace.is_some() {
            return Err(Error::new("mount_setattr", at.shown(), Errno::NOSYS));
        }
        let target = opened(at).map_err(failed)?;
        if !(change.set | change.clear).is_empty() {
            self.change_attributes(&target, change, &at)?;
            if change.recursive {
                for below in self.mounts_below(&target).map_err(failed)? {
                    self.change_attributes(&below, change, &at)?;
                }
            }
        }
        let Some(propagation) = change.propagation else { return Ok(()) };
        let depth = if change.recursive { MountFlags::REC } else { MountFlags::empty() };
        self.mount(Path::new(""), target.as_fd(), propagation | depth, &at.shown())
    }

    fn change_attributes(&self, target: &OwnedFd, change: Change<'_>, at: &At<'_>) -> Result<()> {
        let mut clear = change.clear;
        if (change.set | clear).intersects(MountAttributes::ATIME) {
            clear |= MountAttributes::ATIME;
        }
        let there = attributes_of(target).map_err(|errno| Error::new("fstatvfs", at.shown(), errno))?;
        let flags = MountFlags::REMOUNT | MountFlags::BIND | as_flags((there - clear) | change.set);
        self.mount(Path::new(""), target.as_fd(), flags, &at.shown())
    }

    /// All mounts below one, open: found by their numbers in `mountinfo` and then looked for by their paths.
    fn mounts_below(&self, tree: &OwnedFd) -> std::result::Result<Vec<OwnedFd>, Errno> {
        let text = self.read(Path::new("../mountinfo"))?;
        let mounts: Vec<_> = text.split(|byte| *byte == b'\n').filter_map(Line::parse).collect();
        let top = self.mount_of(tree)?;
        let Some(base) = mounts.iter().find(|mount| mount.id == top) else { return Err(Errno::NOENT) };
        let mut inside = BTreeSet::from([top]);
        // A mount's parent may stand after it, if it was moved.
        loop {
            let more = mounts.iter().filter(|mount| inside.contains(&mount.parent)).map(|mount| mount.id);
            let all: BTreeSet<u32> = more.chain(inside.iter().copied()).collect();
            if all.len() == inside.len() {
                break;
            }
            inside = all;
        }
        let mut below = Vec::new();
        for mount in mounts.iter().filter(|mount| mount.id != top && inside.contains(&mount.id)) {
            let path = mount.point.strip_prefix(&base.point).map_err(|_| Errno::NOENT)?;
            let opened = crate::fs::open_without_links(tree.as_fd(), path, OFlags::PATH)?;
            // One that another covers cannot be reached, and to leave it as it is would be half of what was asked.
            if self.mount_of(&opened)? != mount.id {
                return Err(Errno::BUSY);
            }
            below.push(opened);
        }
        Ok(below)
    }

    /// The number of the mount that an open file is of.
    fn mount_of(&self, file: &OwnedFd) -> std::result::Result<u32, Errno> {
        let text = self.read(&Path::new("../fdinfo").join(number(file.as_fd())))?;
        let text = String::from_utf8_lossy(&text);
        let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        id.ok_or(Errno::INVAL)
    }

    fn read(&self, path: &Path) -> std::result::Result<Vec<u8>, Errno> {
        let file = openat(&self.descriptors, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let (mut text, mut part) = (Vec::new(), [0; 4096]);
        loop {
            match rustix::io::read(&file, &mut part)? {
                0 => return Ok(text),
                count => text.extend_from_slice(&part[..count]),
            }
        }
    }
}

/// Opens what a call is about.
fn opened(at: At<'_>) -> std::result::Result<OwnedFd, Errno> {
    match at.directory {
        Some(file) if at.path.as_os_str().is_empty() => file.try_clone_to_owned().map_err(|_| Errno::MFILE),
        directory => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            openat(directory.unwrap_or(CWD), at.path, flags, Mode::empty())
        }
    }
}

/// A line of `mountinfo`: proc_pid_mountinfo(5).
struct Line {
    id: u32,
    parent: u32,
    point: PathBuf,
}

impl Line {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let escaped = fields.nth(2)?;
        let mut point = Vec::new();
        let mut rest = escaped.iter();
        while let Some(byte) = rest.next() {
            // Spaces, line ends and backslashes are three octal digits.
            let digits = rest.as_slice().get(..3).filter(|_| *byte == b'\\');
            match digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
                Some(meant) => {
                    point.push(meant);
                    rest.nth(2);
                }
                None => point.push(*byte),
            }
        }
        Some(Self { id, parent, point: PathBuf::from(OsStr::from_bytes(&point)) })
    }
}

/// What fsconfig(2) is told by one word each as flags and data of mount(2).
fn as_options(settings: &[Setting<'_>]) -> (MountFlags, String) {
    const WORDS: [(&str, MountFlags); 6] = [
        ("ro", MountFlags::RDONLY),
        ("rw", MountFlags::empty()),
        ("sync", MountFlags::SYNCHRONOUS),
        ("dirsync", MountFlags::DIRSYNC),
        ("lazytime", MountFlags::LAZYTIME),
        ("mand", MountFlags::MANDLOCK),
    ];
    let (mut flags, mut data) = (MountFlags::empty(), Vec::new());
    for setting in settings {
        match *setting {
            Setting::Flag(word) => match WORDS.iter().find(|(known, _)| *known == word) {
                Some((_, flag)) => flags |= *flag,
                None => data.push(word.to_owned()),
            },
            // A label may have commas in it, which would end it.
            Setting::String(key, value) if key.ends_with("context") => {
                data.push(format!("{key}=\"{value}\""))
            }
            Setting::String(key, value) => data.push(format!("{key}={value}")),
            Setting::Fd(..) | Setting::Create | Setting::Reconfigure => {}
        }
    }
    (flags, data.join(","))
}

/// The flags of one mount by which mount(2), mount_setattr(2) and statvfs(3) know the same attribute.
const ATTRIBUTES: [(MountAttributes, MountFlags, u64); 6] = [
    (MountAttributes::RDONLY, MountFlags::RDONLY, libc::ST_RDONLY),
    (MountAttributes::NOSUID, MountFlags::NOSUID, libc::ST_NOSUID),
    (MountAttributes::NODEV, MountFlags::NODEV, libc::ST_NODEV),
    (MountAttributes::NOEXEC, MountFlags::NOEXEC, libc::ST_NOEXEC),
    (MountAttributes::NODIRATIME, MountFlags::NODIRATIME, libc::ST_NODIRATIME),
    (MountAttributes::NOSYMFOLLOW, MountFlags::NOSYMFOLLOW, 0x2000),
];

fn as_flags(attributes: MountAttributes) -> MountFlags {
    let times = match attributes & MountAttributes::ATIME {
        MountAttributes::NOATIME => MountFlags::NOATIME,
        MountAttributes::STRICTATIME => MountFlags::STRICTATIME,
        _ => MountFlags::RELATIME,
    };
    let set = ATTRIBUTES.iter().filter(|(attribute, ..)| attributes.contains(*attribute));
    set.fold(times, |flags, (_, flag, _)| flags | *flag)
}

/// The attributes of the mount that an open file is of.
fn attributes_of(file: &OwnedFd) -> std::result::Result<MountAttributes, Errno> {
    let seen = rustix::fs::fstatvfs(file)?.f_flag.bits();
    let times = match (seen & libc::ST_NOATIME != 0, seen & libc::ST_RELATIME != 0) {
        (true, _) => MountAttributes::NOATIME,
        (_, true) => MountAttributes::empty(),
        _ => MountAttributes::STRICTATIME,
    };
    let set = ATTRIBUTES.iter().filter(|(.., bit)| seen & bit != 0);
    Ok(set.fold(times, |attributes, (attribute, ..)| attributes | *attribute))
}
