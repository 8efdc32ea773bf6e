//! The index: what `images` prints, and what `index.json` is made of, in one file.
//!
//! The files below `references/` and `images/` are the truth. `listing.json` is believed only in the boot in which it was written, if its digest is
//! right, and while each directory has the time at which it was read; else it is made anew. Whoever changes the store takes it away first
//! (as `listing.old`) and writes it last, so that a killed command leaves none. It is never waited for.
//!
//! What is made anew reads only files that are not as `listing.old` says. A file system's clock ticks some hundred times in a second, and what
//! changes twice in a tick looks the same: so what had just been changed when that was written is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Platform};
use crate::store::{ImageRecord, ReferenceRecord, Store, read_record, remove_if_there, to_json, version};

const KEPT: &str = "listing.json";
const OLD: &str = "listing.old";

/// What has not been changed for so many seconds when it is read is told from its next state by its time.
const SETTLED: i64 = 2;

/// All names and images.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listing {
    version: u32,
    boot: String,
    /// When it was begun, in seconds since 1970.
    begun: i64,
    /// Directories below `references/` by path.
    references: BTreeMap<String, Folder<ReferenceRecord>>,
    images: Folder<Listed>,
}

/// What `images` prints of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) id: Digest,
    pub(crate) manifest: Descriptor,
    pub(crate) platform: Platform,
    pub(crate) created: Option<String>,
    pub(crate) size: u64,
}

/// A directory.
#[derive(Debug, Serialize, Deserialize)]
struct Folder<T> {
    state: State,
    folders: Vec<String>,
    files: BTreeMap<String, (State, T)>,
}

/// What tells one state of a file or directory from another: inode, size, seconds and nanoseconds of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct State(u64, u64, i64, i64);

impl State {
    fn of(path: &Path) -> Result<Self> {
        let found = fs_err::symlink_metadata(path)?;
        Ok(Self(found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    }
}

impl From<ImageRecord> for Listed {
    fn from(record: ImageRecord) -> Self {
        let ImageRecord { id, manifest, platform, created, size, .. } = record;
        Self { id, manifest, platform, created, size }
    }
}

impl Store {
    /// All names and images: from the index, or where that is not to be believed from the files, and then the index is written anew.
    pub(crate) fn listing(&self) -> Result<Listing> {
        if let Some(kept) = self.kept_listing() {
            return Ok(kept);
        }
        // Where nothing can be written it is read all the same.
        let commit = self.commit_lock().ok();
        let listing = self.make_listing()?;
        if commit.is_some() {
            drop(self.write_indexes(&listing));
        }
        Ok(listing)
    }

    /// Takes the index away: the store is going to be changed. The caller has just taken the commit lock.
    pub(crate) fn take_listing(&self) -> Result<()> {
        let path = self.root.join(KEPT);
        match fs_err::rename(&path, self.root.join(OLD)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => remove_if_there(&path),
            _ => Ok(()),
        }
    }

    /// Reads what is not known from before. The caller holds the commit lock.
    pub(crate) fn make_listing(&self) -> Result<Listing> {
        let old = read(&self.root.join(OLD));
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let settled = old.as_ref().map_or(i64::MIN, |old| old.begun - SETTLED);
        let mut references = BTreeMap::new();
        let mut waiting = vec!["references".to_owned()];
        while let Some(name) = waiting.pop() {
            let before = old.as_ref().and_then(|old| old.references.get(&name));
            let folder = Folder::read(&self.root.join(&name), before, settled, read_record)?;
            waiting.extend(folder.folders.iter().map(|below| format!("{name}/{below}")));
            references.insert(name, folder);
        }
        let before = old.as_ref().map(|old| &old.images);
        let read = |path: &Path| read_record::<ImageRecord>(path).map(Listed::from);
        let images = Folder::read(&self.root.join("images"), before, settled, read)?;
        Ok(Listing { version: version(), boot: boot()?, begun, references, images })
    }

    /// Writes the index. That it cannot be written harms nobody.
    pub(crate) fn keep_listing(&self, listing: &Listing) {
        let body = to_json(listing);
        let temporary = self.root.join(".listing.json");
        let bytes = [Digest::of(&body).hex().as_bytes(), b"\n", &body].concat();
        let written = fs_err::write(&temporary, bytes);
        if written.and_then(|()| fs_err::rename(&temporary, self.root.join(KEPT))).is_err() {
            drop(remove_if_there(&temporary));
        }
    }

    fn kept_listing(&self) -> Option<Listing> {
        let listing = read(&self.root.join(KEPT))?;
        let is_same =
            |name: &str, state: State| State::of(&self.root.join(name)).is_ok_and(|now| now == state);
        let is_believed = listing.boot == boot().ok()?
            && is_same("images", listing.images.state)
            && listing.references.iter().all(|(name, folder)| is_same(name, folder.state));
        is_believed.then_some(listing)
    }
}

impl Listing {
    /// All names' records, sorted by name.
    pub(crate) fn names(&self) -> Vec<&ReferenceRecord> {
        let mut names: Vec<(PathBuf, &ReferenceRecord)> = Vec::new();
        for (directory, folder) in &self.references {
            names.extend(
                folder.files.iter().map(|(name, (_, record))| (Path::new(directory).join(name), record)),
            );
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names.into_iter().map(|(_, record)| record).collect()
    }

    /// An image that is here.
    pub(crate) fn image(&self, id: Digest) -> Option<&Listed> {
        self.images.files.get(&format!("{}.json", id.hex())).map(|(_, image)| image)
    }

    /// Images that no name means.
    pub(crate) fn nameless(&self) -> impl Iterator<Item = &Listed> {
        let names = self.names().into_iter();
        let named: BTreeSet<Digest> =
            names.flat_map(|record| record.images.iter().map(|image| image.id)).collect();
        self.images.files.values().map(|(_, image)| image).filter(move |image| !named.contains(&image.id))
    }
}

impl<T: Clone> Folder<T> {
    /// Reads a directory, and those of its files that are not as they were `before`, or that were changed after `settled`.
    fn read(
        path: &Path,
        before: Option<&Self>,
        settled: i64,
        read: impl Fn(&Path) -> Result<T>,
    ) -> Result<Self> {
        let state = State::of(path)?;
        let is_settled = |state: State| state.2 < settled;
        if let Some(before) = before.filter(|before| before.state == state && is_settled(state)) {
            return Ok(Self { state, folders: before.folders.clone(), files: before.files.clone() });
        }
        let (mut folders, mut files) = (Vec::new(), BTreeMap::new());
        for entry in fs_err::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                folders.push(name);
                continue;
            }
            let state = State::of(&entry.path())?;
            let known = before.and_then(|before| before.files.get(&name));
            let record = match known.filter(|(before, _)| *before == state && is_settled(state)) {
                Some((_, record)) => record.clone(),
                None => read(&entry.path())?,
            };
            files.insert(name, (state, record));
        }
        Ok(Self { state, folders, files })
    }
}

/// A listing whose digest is right.
fn read(path: &Path) -> Option<Listing> {
    let bytes = fs_err::read(path).ok()?;
    let (digest, body) = (bytes.get(..64)?, bytes.get(65..)?);
    if Digest::of(body).hex().as_bytes() != digest {
        return None;
    }
    serde_json::from_slice(body).ok().filter(|listing: &Listing| listing.version == version())
}

fn boot() -> Result<String> {
    Ok(fs_err::read_to_string("/proc/sys/kernel/random/boot_id").map_err(Error::File)?.trim().to_owned())
}
