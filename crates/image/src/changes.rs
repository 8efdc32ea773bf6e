//! What a container has changed: the upper directory of its union mount, read as a layer.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use fs_err::File;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Error, Result, system};
use crate::inventory::{Content, Record};
use crate::merged::{Files, Node, below};
use crate::store::Store;
use crate::tar::{Entry, Kind, Time, Writer};
use crate::tree::{is_whiteout, join, split};
use crate::xattr;

/// A file that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What became of it.
    pub kind: ChangeKind,
    /// Its path, from the root on.
    pub path: PathBuf,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It has other content or attributes, or something in it has.
    Changed,
    /// It is gone.
    Deleted,
}

/// The owner inside the container of what belongs to an id here: of a user, else of a group. None where there is none.
pub type Owner<'a> = &'a dyn Fn(u32, bool) -> Option<u32>;

/// An upper directory.
///
/// A running container may change it meanwhile: nothing in it is opened by way of a link, nor outside.
pub struct Changes {
    directory: PathBuf,
    root: OwnedFd,
    entries: BTreeMap<Vec<u8>, Upper>,
}

struct Upper {
    what: What,
    entry: Entry,
    /// Device and inode of a file with several names.
    inode: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Whiteout,
    Opaque,
    Other,
}

impl Changes {
    /// Reads the directory. Nothing of `made` counts that is empty: places that were made for mounts.
    pub fn read(directory: &Path, owner: Owner<'_>, made: &[&str]) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty()).map_err(system("open", directory))?;
        let mut changes = Self { directory: directory.to_owned(), root, entries: BTreeMap::new() };
        let mut todo = vec![Vec::new()];
        while let Some(path) = todo.pop() {
            let full = changes.full(&path);
            let dir = match changes.open(&path, OFlags::DIRECTORY) {
                // Gone meanwhile, or no directory any more.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_empty() => continue,
                other => other.map_err(system("open", &full))?,
            };
            let failed = |errno| system("read directory", &full)(errno);
            for item in Dir::read_from(&dir).map_err(failed)? {
                let name = item.map_err(failed)?.file_name().to_bytes().to_vec();
                if name == b"." || name == b".." {
                    continue;
                }
                let path = join(&path, &name);
                if let Some(upper) = changes.upper(&dir, &path, owner)? {
                    if upper.entry.kind == Kind::Directory {
                        todo.push(path.clone());
                    }
                    changes.entries.insert(path, upper);
                }
            }
        }
        for path in made.iter().rev().map(|path| path.trim_start_matches('/').as_bytes()) {
            let is_empty = below(&changes.entries, path).next().is_none();
            let has_nothing = |upper: &Upper| upper.what == What::Other && upper.entry.size == 0;
            if is_empty && changes.entries.get(path).is_some_and(has_nothing) {
                changes.entries.remove(path);
            }
        }
        Ok(changes)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        kernel::fs::open_in_same_mount(self.root.as_fd(), Path::new(OsStr::from_bytes(path)), flags)
    }

    /// Opens a file as it was when the directory was read, as far as one can tell.
    fn open_file(&self, path: &[u8]) -> Result<File> {
        let full = self.full(path);
        let file = self.open(path, OFlags::empty()).map_err(system("open", &full))?;
        let stat = rustix::fs::fstat(&file).map_err(system("stat", &full))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(File::from_parts(file.into(), full)),
            _ => Err(system("open", &full)(Errno::STALE)),
        }
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        self.directory.join(OsStr::from_bytes(path))
    }

    /// None: what no archive can hold, a socket, and what is gone meanwhile.
    fn upper(&self, dir: &OwnedFd, path: &[u8], owner: Owner<'_>) -> Result<Option<Upper>> {
        let full = self.full(path);
        let (_, name) = split(path);
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(system("stat", &full))?,
        };
        let place = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
        let mut xattrs = xattr::read(&place, false).map_err(system("listxattr", &full))?;
        let is_opaque = |(name, value): &(Vec<u8>, Vec<u8>)| {
            matches!(&name[..], b"trusted.overlay.opaque" | b"user.overlay.opaque") && value == b"y"
        };
        let what = match (is_whiteout(&stat), xattrs.iter().any(is_opaque)) {
            (true, _) => What::Whiteout,
            (false, true) => What::Opaque,
            (false, false) => What::Other,
        };
        xattrs.retain(|(name, _)| is_portable(name));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(dir, name, Vec::new()).map_err(system("readlink", &full))?;
                Kind::Symlink(target.into_bytes())
            }
            FileType::CharacterDevice => {
                Kind::Char(rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            }
            FileType::BlockDevice => {
                Kind::Block(rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            }
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(None),
        };
        let (uid, gid) = match what {
            What::Whiteout => (0, 0),
            _ => owner_of(&stat, owner).ok_or(Error::NoOwner {
                path: full,
                uid: stat.st_uid,
                gid: stat.st_gid,
            })?,
        };
        let has_names = kind != Kind::Directory && stat.st_nlink > 1 && what == What::Other;
        let entry = Entry {
            path: path.to_vec(),
            size: if kind == Kind::File { stat.st_size as u64 } else { 0 },
            kind,
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
            xattrs,
            segments: None,
        };
        Ok(Some(Upper { what, entry, inode: has_names.then_some((stat.st_dev, stat.st_ino)) }))
    }

    /// Takes away what says nothing: directories that were copied up for what does not count, and whiteouts of what is not below.
    fn without_noise(mut self, files: &Files) -> Self {
        let paths: Vec<Vec<u8>> = self.entries.keys().rev().cloned().collect();
        for path in paths {
            let upper = &self.entries[&path];
            let is_noise = match (upper.what, files.get(&path)) {
                (What::Whiteout, known) => known.is_none(),
                (What::Opaque, _) | (What::Other, None) => false,
                (What::Other, Some(node)) => {
                    upper.entry.kind == Kind::Directory
                        && is_same_directory(&upper.entry, &node.record)
                        && below(&self.entries, &path).next().is_none()
                }
            };
            if is_noise {
                self.entries.remove(&path);
            }
        }
        self
    }

    fn listed(&self, files: &Files) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut note = |kind, path: &[u8]| {
            changes.push(Change { kind, path: Path::new("/").join(std::ffi::OsStr::from_bytes(path)) });
        };
        for (path, upper) in &self.entries {
            match upper.what {
                What::Whiteout => note(ChangeKind::Deleted, path),
                _ if files.contains_key(path) && !self.is_hidden(path) => note(ChangeKind::Changed, path),
                _ => note(ChangeKind::Added, path),
            }
            // What an opaque directory does not have (any more), as far as its own directory is there.
            if upper.what == What::Opaque {
                for (gone, _) in below(files, path) {
                    let (parent, _) = split(gone);
                    if !self.entries.contains_key(gone) && self.entries.contains_key(parent) {
                        note(ChangeKind::Deleted, gone);
                    }
                }
            }
        }
        changes.sort_by(|one, other| one.path.cmp(&other.path));
        changes
    }

    /// Whether an opaque directory on the way hides what is below.
    fn is_hidden(&self, path: &[u8]) -> bool {
        let mut here = split(path).0;
        while !here.is_empty() {
            if self.entries.get(here).is_some_and(|upper| upper.what == What::Opaque) {
                return true;
            }
            here = split(here).0;
        }
        false
    }

    /// Writes the entries as a layer's archive.
    fn write_layer(&self, output: &mut dyn Write) -> Result<()> {
        let mut writer = Writer::new(output);
        let mut names = HashMap::new();
        for (path, upper) in &self.entries {
            if upper.what == What::Whiteout {
                let (parent, name) = split(path);
                writer.add(&empty(join(parent, &[b".wh.", name].concat())), &mut std::io::empty())?;
                continue;
            }
            self.write(&mut writer, path, upper, &mut names)?;
            if upper.what == What::Opaque {
                writer.add(&empty(join(path, b".wh..wh..opq")), &mut std::io::empty())?;
            }
        }
        writer.finish()?;
        Ok(())
    }

    fn write<W: Write>(
        &self,
        writer: &mut Writer<W>,
        path: &[u8],
        upper: &Upper,
        names: &mut HashMap<(u64, u64), Vec<u8>>,
    ) -> Result<()> {
        if let Some(inode) = upper.inode {
            if let Some(first) = names.get(&inode) {
                let kind = Kind::HardLink(first.clone());
                let entry = Entry { kind, size: 0, xattrs: Vec::new(), ..upper.entry.clone() };
                return Ok(writer.add(&entry, &mut std::io::empty())?);
            }
            names.insert(inode, path.to_vec());
        }
        match upper.entry.kind {
            Kind::File => writer.add(&upper.entry, &mut self.open_file(path)?)?,
            _ => writer.add(&upper.entry, &mut std::io::empty())?,
        }
        Ok(())
    }
}

impl Store {
    /// What a container of an image has added, changed and deleted, by path.
    pub fn changes(&self, image: Digest, changes: Changes) -> Result<Vec<Change>> {
        let files = self.merged(&self.image_record(image)?.layers)?;
        Ok(changes.without_noise(&files).listed(&files))
    }

    /// Writes the changes as the archive of a layer on top of the image's.
    pub(crate) fn write_changes(
        &self,
        layers: &[String],
        changes: Changes,
        output: &mut dyn Write,
    ) -> Result<()> {
        changes.without_noise(&self.merged(layers)?).write_layer(output)
    }

    /// Writes all files that a container of an image sees, but for what is mounted in it, as one archive. None: the changes are the whole root.
    pub fn export(&self, image: Option<Digest>, changes: &Changes, output: &mut dyn Write) -> Result<()> {
        let layers = match image {
            Some(image) => self.image_record(image)?.layers,
            None => Vec::new(),
        };
        let files = self.merged(&layers)?;
        let mut writer = Writer::new(output);
        let (mut below_names, mut upper_names) = (HashMap::new(), HashMap::new());
        let is_seen = |path: &Vec<u8>| {
            let mut here = &path[..];
            loop {
                match changes.entries.get(here).map(|upper| (upper.what, &upper.entry.kind)) {
                    Some((What::Whiteout, _)) => return false,
                    // Something else stands where there was a directory, or the file itself is new.
                    Some((_, kind)) if *kind != Kind::Directory || here.len() == path.len() => return false,
                    Some((What::Opaque, _)) => return false,
                    _ => {}
                }
                if here.is_empty() {
                    return true;
                }
                here = split(here).0;
            }
        };
        let mut lower = files.iter().filter(|(path, _)| !path.is_empty() && is_seen(path)).peekable();
        let mut upper = changes.entries.iter().filter(|(_, upper)| upper.what != What::Whiteout).peekable();
        // Both are in order, and so is what is written: directories before what is in them.
        loop {
            let is_lower_first = match (lower.peek(), upper.peek()) {
                (None, None) => break,
                (Some((one, _)), Some((other, _))) => one < other,
                (is_lower, _) => is_lower.is_some(),
            };
            if is_lower_first && let Some((path, node)) = lower.next() {
                self.write_lower(&mut writer, path, node, &layers, &mut below_names)?;
            } else if let Some((path, entry)) = upper.next() {
                changes.write(&mut writer, path, entry, &mut upper_names)?;
            }
        }
        writer.finish()?;
        Ok(())
    }

    fn write_lower<W: Write>(
        &self,
        writer: &mut Writer<W>,
        path: &[u8],
        node: &Node,
        layers: &[String],
        names: &mut HashMap<(u64, u64), Vec<u8>>,
    ) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let mut entry = entry_of(path, &node.record);
        if entry.kind != Kind::File {
            return Ok(writer.add(&entry, &mut std::io::empty())?);
        }
        let place = self.layer_path(&layers[node.layer]).join("fs").join(std::ffi::OsStr::from_bytes(path));
        let mut file = File::open(place)?;
        let metadata = file.metadata()?;
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = names.get(&inode) {
                entry.kind = Kind::HardLink(first.clone());
                (entry.size, entry.xattrs) = (0, Vec::new());
            } else {
                names.insert(inode, path.to_vec());
            }
        }
        Ok(writer.add(&entry, &mut (&mut file).take(entry.size))?)
    }
}

fn owner_of(stat: &Stat, owner: Owner<'_>) -> Option<(u32, u32)> {
    Some((owner(stat.st_uid, true)?, owner(stat.st_gid, false)?))
}

/// Not overlayfs's own marks, nor labels of this machine's policy, nor lists of ids, which mean others elsewhere.
fn is_portable(name: &[u8]) -> bool {
    let is_label =
        matches!(name, b"security.selinux" | b"security.ima" | b"security.evm" | b"security.apparmor");
    let is_mark = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    !(is_label || is_mark || name.starts_with(b"system."))
}

fn is_same_directory(entry: &Entry, record: &Record) -> bool {
    matches!(record.content, Content::Directory(_))
        && (entry.mode, entry.uid, entry.gid) == (record.mode, record.uid, record.gid)
}

/// The file by which a layer takes a name away.
fn empty(path: Vec<u8>) -> Entry {
    Entry {
        path,
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
        size: 0,
        segments: None,
    }
}

fn entry_of(path: &[u8], record: &Record) -> Entry {
    let kind = match &record.content {
        Content::File(_) => Kind::File,
        Content::Directory(_) => Kind::Directory,
        Content::Symlink(target) => Kind::Symlink(target.clone()),
        Content::Char(major, minor) => Kind::Char(*major, *minor),
        Content::Block(major, minor) => Kind::Block(*major, *minor),
        Content::Fifo | Content::Whiteout => Kind::Fifo,
    };
    Entry {
        path: path.to_vec(),
        kind,
        mode: record.mode,
        uid: record.uid,
        gid: record.gid,
        mtime: record.mtime,
        xattrs: record.xattrs.clone(),
        size: record.size,
        segments: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, gone at the end.
    struct Upper(PathBuf);

    impl Drop for Upper {
        fn drop(&mut self) {
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    /// A running container changes its files between the two looks at them.
    #[test]
    fn nothing_is_read_by_way_of_a_link_that_was_put_in_the_way() {
        let upper = Upper(std::env::temp_dir().join(format!("coracle-changes-{}", std::process::id())));
        let at = |name: &str| upper.0.join(name);
        fs_err::create_dir_all(at("upper/etc")).unwrap();
        fs_err::create_dir(at("host")).unwrap();
        fs_err::write(at("upper/etc/file"), "own").unwrap();
        fs_err::write(at("host/file"), "not").unwrap();
        let read = || Changes::read(&at("upper"), &|id, _| Some(id), &[]).unwrap();
        let (inside, itself) = (read(), read());
        let mut whole = Vec::new();
        read().write_layer(&mut whole).unwrap();
        assert!(whole.windows(3).any(|part| part == b"own"));
        fs_err::rename(at("upper/etc"), at("upper/old")).unwrap();
        std::os::unix::fs::symlink(at("host"), at("upper/etc")).unwrap();
        assert!(inside.write_layer(&mut Vec::new()).is_err(), "a directory became a link");
        fs_err::remove_file(at("upper/etc")).unwrap();
        fs_err::create_dir(at("upper/etc")).unwrap();
        std::os::unix::fs::symlink(at("host/file"), at("upper/etc/file")).unwrap();
        assert!(itself.write_layer(&mut Vec::new()).is_err(), "a file became a link");
    }
}
