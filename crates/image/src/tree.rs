//! The directory that a layer becomes, and what its archive left to the layers below.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Error, Result, system};
use crate::form::Form;
use crate::inventory::{self, Content, Record};
use crate::lower::Lower;
use crate::tar::{Entry, Time};

/// What a directory of the layer will be once the layer is complete. None: nothing says, so the layers below do.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) record: Option<Record>,
    pub(crate) opaque: bool,
}

/// A layer that is being unpacked.
pub(crate) struct Tree {
    pub(crate) layer: String,
    pub(crate) root: OwnedFd,
    pub(crate) form: Form,
    pub(crate) inventory: inventory::Writer,
    pub(crate) directories: BTreeMap<Vec<u8>, Directory>,
    /// Hard links whose target the layer itself did not have (yet): name, target.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) size: u64,
}

/// What is known of a complete layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// Bytes of all regular files.
    pub(crate) size: u64,
    /// The root hides all layers below.
    pub(crate) opaque_root: bool,
    /// The root's attributes, where the layer has an entry for it.
    pub(crate) root: Option<Record>,
}

pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub(crate) fn record_of(entry: &Entry, content: Content) -> Record {
    Record {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        size: if matches!(content, Content::File(_)) { entry.size } else { 0 },
        xattrs: entry.xattrs.clone(),
        content,
    }
}

impl Tree {
    /// An empty layer in the empty directory `fs`, whose manifest is written to `manifest`.
    pub(crate) fn create(layer: &str, form: Form, fs: &Path, manifest: &Path) -> Result<Self> {
        let root = rustix::fs::open(fs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(system("open", fs))?;
        let inventory = inventory::Writer::create(manifest)?;
        let (directories, links) = (BTreeMap::new(), Vec::new());
        Ok(Self { layer: layer.to_owned(), root, form, inventory, directories, links, size: 0 })
    }

    /// Whether the layer means the same whatever lies below it.
    pub(crate) fn is_self_contained(&self) -> bool {
        self.links.is_empty()
            && self.directories.iter().all(|(path, directory)| path.is_empty() || directory.record.is_some())
    }

    /// Gives all directories their attributes and ends the layer's manifest. What the archive left out is taken from `lower`:
    /// attributes of parents that it only implied, and targets of hard links.
    pub(crate) fn complete(mut self, lower: &Lower) -> Result<Summary> {
        for (path, target) in std::mem::take(&mut self.links) {
            self.link_to_lower(&path, &target, lower)?;
        }
        let directories = std::mem::take(&mut self.directories);
        let root = directories.get(&b""[..]).cloned().unwrap_or(Directory { record: None, opaque: false });
        self.complete_directory(b"", &root, lower)?;
        // Children before parents: a parent's time is set after all that would change it.
        for (path, directory) in directories.iter().rev().filter(|(path, _)| !path.is_empty()) {
            self.complete_directory(path, directory, lower)?;
        }
        self.inventory.finish()?;
        Ok(Summary { size: self.size, opaque_root: root.opaque, root: root.record })
    }

    fn complete_directory(&mut self, path: &[u8], directory: &Directory, lower: &Lower) -> Result<()> {
        let mut record = match &directory.record {
            Some(record) => record.clone(),
            // The root's own attributes are looked for in all layers when the image is mounted.
            None if path.is_empty() || directory.opaque => implied(),
            None => lower.directory(path)?.unwrap_or_else(implied),
        };
        record.content = Content::Directory(directory.opaque);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open(path, flags).map_err(|errno| self.failed("open", path, errno))?;
        if directory.opaque {
            rustix::fs::fsetxattr(&file, self.form.opaque_xattr(), b"y", XattrFlags::empty())
                .map_err(|errno| self.failed("setxattr", path, errno))?;
        }
        self.set_attributes(file.as_fd(), path, &record)?;
        self.inventory.add(path, &record)
    }

    /// Copies the target of a hard link up from the layers below, as overlayfs would, and links to the copy.
    fn link_to_lower(&mut self, path: &[u8], target: &[u8], lower: &Lower) -> Result<()> {
        let refused = |reason| self.refused(path, reason);
        let found =
            lower.file(target)?.ok_or_else(|| refused("it is a hard link to a file that does not exist"))?;
        let (parent, name) = split(target);
        if self.open_real(parent).is_err() {
            self.make_parents(parent)?;
        }
        let dir = self.open_real(parent).map_err(|errno| self.failed("open", parent, errno))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                let record = found.copy_to(&file).map_err(|errno| self.failed("copy", target, errno))?;
                self.set_attributes(file.as_fd(), target, &record)?;
                self.size += record.size;
                self.inventory.add(target, &record)?;
            }
            // A second link to the same file.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.failed("create", target, errno)),
        }
        let (parent, link) = split(path);
        let link_dir = self.open_real(parent).map_err(|errno| self.failed("open", parent, errno))?;
        match rustix::fs::linkat(&dir, name, &link_dir, link, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                // Only a whiteout can stand here: other files were seen to in `link_late`.
                let temporary = [b".wh..wh.".as_slice(), link].concat();
                rustix::fs::linkat(&dir, name, &link_dir, &temporary[..], AtFlags::empty())
                    .and_then(|()| {
                        rustix::fs::renameat_with(
                            &link_dir,
                            &temporary[..],
                            &link_dir,
                            link,
                            RenameFlags::empty(),
                        )
                    })
                    .map_err(|errno| self.failed("link", path, errno))?;
            }
            other => other.map_err(|errno| self.failed("link", path, errno))?,
        }
        self.inventory.link(path, target)
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<()> {
        let mut here = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            let dir = self.open_real(&here).map_err(|errno| self.failed("open", &here, errno))?;
            here = join(&here, part);
            match rustix::fs::mkdirat(&dir, part, Mode::RWXU) {
                Ok(()) => {
                    self.directories.insert(here.clone(), Directory { record: None, opaque: false });
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed("make directory", &here, errno)),
            }
        }
        Ok(())
    }

    pub(crate) fn describe_directory(&mut self, path: &[u8], entry: &Entry) {
        let opaque = self.directories.get(path).is_some_and(|known| known.opaque);
        let record = Some(record_of(entry, Content::Directory(opaque)));
        self.directories.insert(path.to_vec(), Directory { record, opaque });
    }

    /// Opens a directory by its path without symbolic links.
    pub(crate) fn open_real(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// Owner, mode, extended attributes and time, in the order that keeps each: chown(2) takes set-id bits and
    /// capabilities away.
    pub(crate) fn set_attributes(&self, file: BorrowedFd<'_>, path: &[u8], record: &Record) -> Result<()> {
        let (uid, gid) = self.form.owner(record.uid, record.gid);
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|errno| self.failed("chown", path, errno))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(record.mode))
            .map_err(|errno| self.failed("chmod", path, errno))?;
        for (name, value) in record.xattrs.iter().filter(|(name, _)| self.form.takes_xattr(name)) {
            rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty())
                .map_err(|errno| self.failed("setxattr", path, errno))?;
        }
        rustix::fs::futimens(file, &timestamps(record.mtime))
            .map_err(|errno| self.failed("set the time of", path, errno))
    }

    /// The same for what cannot be opened: symbolic links, devices, pipes.
    pub(crate) fn set_node_attributes(
        &self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        record: &Record,
    ) -> Result<()> {
        let (_, name) = split(path);
        let (uid, gid) = self.form.owner(record.uid, record.gid);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(dir, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
            .map_err(|errno| self.failed("chown", path, errno))?;
        // Not a symbolic link: those have no mode, and chmod(2) would follow them.
        if !matches!(record.content, Content::Symlink(_)) {
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(record.mode), AtFlags::empty())
                .map_err(|errno| self.failed("chmod", path, errno))?;
        }
        for (attribute, value) in record.xattrs.iter().filter(|(name, _)| self.form.takes_xattr(name)) {
            let place = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
            rustix::fs::lsetxattr(&place[..], &attribute[..], value, XattrFlags::empty())
                .map_err(|errno| self.failed("setxattr", path, errno))?;
        }
        rustix::fs::utimensat(dir, name, &timestamps(record.mtime), flags)
            .map_err(|errno| self.failed("set the time of", path, errno))
    }

    pub(crate) fn failed(&self, call: &'static str, path: &[u8], errno: Errno) -> Error {
        Error::Entry { layer: self.layer.clone(), call, path: shown(path), errno }
    }

    pub(crate) fn refused(&self, path: &[u8], reason: &'static str) -> Error {
        Error::Refused { layer: self.layer.clone(), path: shown(path), reason }
    }
}

/// A name in a message: no control characters reach a terminal.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let text = text.chars().take(200).flat_map(|c| c.escape_debug()).collect::<String>();
    if text.is_empty() { "/".to_owned() } else { text }
}

/// What a directory is that no layer describes: as docker makes it.
fn implied() -> Record {
    Record { mode: 0o755, content: Content::Directory(false), ..Record::whiteout() }
}
