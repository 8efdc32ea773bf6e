//! Finding what changed in the store since it was written.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::digest::{Digest, hex};
use crate::error::{Error, Result, system};
use crate::form::Form;
use crate::inventory::{self, Content, Record};
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};
use crate::stream::Range;
use crate::xattr;

/// A file of the store that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What it was, for example `mode 644`.
    pub expected: String,
    /// What it is.
    pub found: String,
}

/// What became of an image's files.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The image.
    pub id: Digest,
    /// Its names.
    pub names: Vec<Reference>,
    /// What is wrong with its layers, its blobs and its documents.
    pub damage: Vec<Damage>,
    /// Compressed blobs that were dropped, since a registry has them.
    pub dropped: Vec<Digest>,
}

impl Store {
    /// Reads every layer and blob of the image that `name` means, or of all images, and compares them with what was written down when
    /// they were unpacked. Changes nothing.
    pub fn verify(&self, name: Option<&str>) -> Result<Vec<Damage>> {
        let names: Vec<String> = name.map(str::to_owned).into_iter().collect();
        let mut all: Vec<Damage> = Vec::new();
        for damage in self.verify_images(&names)?.into_iter().flat_map(|image| image.damage) {
            if !all.contains(&damage) {
                all.push(damage);
            }
        }
        Ok(all)
    }

    /// The same for each of several images, or for all where none is named. What they share is read once.
    pub fn verify_images(&self, names: &[String]) -> Result<Vec<Verified>> {
        let find = || match names {
            [] => self.image_records(),
            names => names.iter().map(|name| self.named_record(name)).collect(),
        };
        self.keeping(find, |records| self.verify_records(records))
    }

    fn verify_records(&self, records: Vec<ImageRecord>) -> Result<Vec<Verified>> {
        let moment = self.moment()?;
        let fetchable = self.fetchable_blobs(&self.image_records()?);
        let names = records.iter().map(|record| self.names_of(record.id)).collect::<Result<Vec<_>>>()?;
        drop(moment);
        let (mut layers, mut blobs) = (BTreeMap::new(), BTreeMap::new());
        let mut images = Vec::new();
        for (record, names) in records.into_iter().zip(names) {
            let mut image = Verified { id: record.id, names, damage: Vec::new(), dropped: Vec::new() };
            for key in &record.layers {
                if !layers.contains_key(key) {
                    layers.insert(key.clone(), self.verify_layer(key)?);
                }
                image.damage.extend(layers[key].iter().cloned());
            }
            let mut needed = BTreeSet::new();
            self.mark(&record.manifest, &mut needed, 0);
            for digest in needed {
                let is_here = self.blob_path(digest).exists();
                if !is_here && fetchable.contains(&digest) {
                    image.dropped.push(digest);
                    continue;
                }
                if let Entry::Vacant(place) = blobs.entry(digest) {
                    place.insert(self.verify_blob(digest)?);
                }
                image.damage.extend(blobs[&digest].iter().cloned());
            }
            images.push(image);
        }
        Ok(images)
    }

    /// What is wrong with a layer.
    pub(crate) fn verify_layer(&self, key: &str) -> Result<Vec<Damage>> {
        let mut damage = Vec::new();
        verify_layer(&self.layer_path(key), self.form, &mut damage)?;
        Ok(damage)
    }

    /// What is wrong with a blob.
    pub(crate) fn verify_blob(&self, digest: Digest) -> Result<Vec<Damage>> {
        let mut damage = Vec::new();
        verify_blob(&self.blob_path(digest), digest, &mut damage)?;
        Ok(damage)
    }
}

fn verify_blob(path: &Path, digest: Digest, damage: &mut Vec<Damage>) -> Result<()> {
    let mut note = |found| {
        damage.push(Damage { path: path.to_owned(), expected: digest.to_string(), found });
    };
    let mut file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            note("nothing".to_owned());
            return Ok(());
        }
        Err(error) => return Err(Error::File(error)),
    };
    let found = digest_of(&mut file)?;
    if found != digest {
        note(found.to_string());
    }
    Ok(())
}

fn digest_of(file: &mut impl Read) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::finish(hash)),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn verify_layer(layer: &Path, form: Form, damage: &mut Vec<Damage>) -> Result<()> {
    let manifest = layer.join("manifest");
    let expected = match inventory::read(&manifest) {
        Ok(expected) => expected,
        Err(Error::BadRecord { path, reason }) => {
            damage.push(Damage { path, expected: "an intact manifest".to_owned(), found: reason });
            return Ok(());
        }
        Err(Error::File(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            damage.push(Damage {
                path: manifest,
                expected: "a manifest".to_owned(),
                found: "nothing".to_owned(),
            });
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let path = layer.join("fs");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(&path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            damage.push(Damage { path, expected: "a directory".to_owned(), found: "nothing".to_owned() });
            return Ok(());
        }
        other => other.map_err(system("open", &path))?,
    };
    Check { root, path, form, expected, damage }.run()
}

/// The comparison of one layer.
struct Check<'a> {
    root: OwnedFd,
    path: PathBuf,
    form: Form,
    /// What was not met yet.
    expected: BTreeMap<Vec<u8>, Record>,
    damage: &'a mut Vec<Damage>,
}

impl Check<'_> {
    fn run(mut self) -> Result<()> {
        let mut directories = vec![Vec::new()];
        while let Some(directory) = directories.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let file = self.open(&directory, flags).map_err(system("open", self.full(&directory)))?;
            let stat = rustix::fs::fstat(&file).map_err(system("stat", self.full(&directory)))?;
            self.compare(&directory, &stat, Some(&file))?;
            let failed = |errno| system("read directory", self.full(&directory))(errno);
            let mut names = Vec::new();
            for entry in Dir::read_from(&file).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(name);
                }
            }
            for name in names {
                let path =
                    if directory.is_empty() { name.clone() } else { [&directory[..], b"/", &name].concat() };
                let stat = rustix::fs::statat(&file, &name[..], AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(system("stat", self.full(&path)))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => directories.push(path),
                    FileType::RegularFile => {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
                        let file = self.open(&path, flags).map_err(system("open", self.full(&path)))?;
                        self.compare(&path, &stat, Some(&file))?;
                    }
                    _ => self.compare(&path, &stat, None)?,
                }
            }
        }
        for (path, record) in std::mem::take(&mut self.expected) {
            // Devices are not made in a user namespace.
            let is_device = matches!(record.content, Content::Char(..) | Content::Block(..));
            if !(is_device && self.form.in_user_namespace) {
                self.note(&path, kind_of(&record.content).to_owned(), "nothing".to_owned());
            }
        }
        Ok(())
    }

    fn compare(&mut self, path: &[u8], stat: &Stat, file: Option<&OwnedFd>) -> Result<()> {
        let kind = kind_found(stat);
        let Some(record) = self.expected.remove(path) else {
            self.note(path, "nothing".to_owned(), kind.to_owned());
            return Ok(());
        };
        if kind != kind_of(&record.content) {
            self.note(path, kind_of(&record.content).to_owned(), kind.to_owned());
            return Ok(());
        }
        if record.content == Content::Whiteout {
            return Ok(());
        }
        self.compare_attributes(path, &record, stat);
        self.compare_xattrs(path, &record, file)?;
        match &record.content {
            Content::File(digest) => {
                self.same(path, "size", record.size, stat.st_size as u64);
                if let Some(file) = file {
                    let file = Arc::new(rustix::io::dup(file).map_err(system("dup", self.full(path)))?);
                    let found = digest_of(&mut Range { file, offset: 0, length: stat.st_size as u64 })?;
                    self.same(path, "content", *digest, found);
                }
            }
            Content::Symlink(target) => {
                let dir = self.open(b"", OFlags::PATH).map_err(system("open", &self.path))?;
                let found = rustix::fs::readlinkat(&dir, path, Vec::new())
                    .map_err(system("readlink", self.full(path)))?;
                let shown = |target: &[u8]| String::from_utf8_lossy(target).into_owned();
                self.same(path, "target", shown(target), shown(found.to_bytes()));
            }
            Content::Char(major, minor) | Content::Block(major, minor) => {
                let found = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                self.same(path, "device", format!("{major}:{minor}"), format!("{}:{}", found.0, found.1));
            }
            _ => {}
        }
        Ok(())
    }

    fn compare_attributes(&mut self, path: &[u8], record: &Record, stat: &Stat) {
        let (uid, gid) = self.form.owner(record.uid, record.gid);
        self.same(path, "owner", format!("{uid}:{gid}"), format!("{}:{}", stat.st_uid, stat.st_gid));
        if !matches!(record.content, Content::Symlink(_)) {
            let (expected, found) = (record.mode, stat.st_mode & 0o7777);
            self.same(path, "mode", format!("{expected:o}"), format!("{found:o}"));
        }
        // File systems differ in how fine and how far their times are: what ext4 keeps is the least.
        let seconds = record.mtime.seconds.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1);
        let nanoseconds = if stat.st_mtime_nsec == 0 { 0 } else { u64::from(record.mtime.nanoseconds) };
        if stat.st_mtime != record.mtime.seconds {
            self.same(path, "time", seconds, stat.st_mtime);
        } else {
            self.same(path, "time", nanoseconds, stat.st_mtime_nsec);
        }
    }

    fn compare_xattrs(&mut self, path: &[u8], record: &Record, file: Option<&OwnedFd>) -> Result<()> {
        let mut expected: BTreeMap<Vec<u8>, String> = record
            .xattrs
            .iter()
            .filter(|(name, _)| self.form.takes_xattr(name))
            .map(|(name, value)| (name.clone(), hex(value)))
            .collect();
        if record.content == Content::Directory(true) {
            expected.insert(self.form.opaque_xattr().as_bytes().to_vec(), hex(b"y"));
        }
        let place = match file {
            Some(file) => format!("/proc/self/fd/{}", file.as_raw_fd()).into_bytes(),
            None => [format!("/proc/self/fd/{}/", self.root.as_raw_fd()).as_bytes(), path].concat(),
        };
        // The link in /proc is followed for an open file only; what it leads to in the other case is not.
        let found = xattr::read(&place, file.is_some()).map_err(system("listxattr", self.full(path)))?;
        let found = found.into_iter().filter(|(name, _)| self.form.takes_xattr(name));
        let found: BTreeMap<_, _> = found.map(|(name, value)| (name, hex(&value))).collect();
        let shown = |map: &BTreeMap<Vec<u8>, String>| {
            let pairs = map.iter().map(|(name, value)| format!("{}={value}", String::from_utf8_lossy(name)));
            pairs.collect::<Vec<_>>().join(" ")
        };
        self.same(path, "attributes", shown(&expected), shown(&found));
        Ok(())
    }

    fn same<T: PartialEq + std::fmt::Display>(&mut self, path: &[u8], what: &str, expected: T, found: T) {
        if expected != found {
            self.note(path, format!("{what} {expected}"), format!("{what} {found}"));
        }
    }

    fn note(&mut self, path: &[u8], expected: String, found: String) {
        self.damage.push(Damage { path: self.full(path), expected, found });
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(path))
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

fn kind_of(content: &Content) -> &'static str {
    match content {
        Content::File(_) => "a file",
        Content::Directory(_) => "a directory",
        Content::Symlink(_) => "a symbolic link",
        Content::Char(..) => "a character device",
        Content::Block(..) => "a block device",
        Content::Fifo => "a named pipe",
        Content::Whiteout => "a whiteout",
    }
}

fn kind_found(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::CharacterDevice if stat.st_rdev == 0 => "a whiteout",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Fifo => "a named pipe",
        _ => "something else",
    }
}
