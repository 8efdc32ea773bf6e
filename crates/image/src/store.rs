//! Where images are kept.
//!
//! ```text
//! ROOT/image/                    0700
//!   oci-layout index.json blobs/ an OCI layout that any tool can read; index.json follows from what is below
//!   layers/KEY/fs                an unpacked layer; manifest: what each file is; layer.json: its sums
//!   images/ID.json               an image that is here: its manifest and its layers
//!   references/HOST/PATH/:TAG    a name: what it means and for which platforms it is here
//!   partial/HEX-SIZE             a registry's blob as far as it came; whoever fetches it holds its lock
//!   staging/                     what is not complete; a directory whose lock nobody holds is rubbish
//!   use.lock commit.lock
//! ```
//!
//! What a name leads to is complete, because the name is written last: staged, made durable, renamed, and the directory made
//! durable. A killed load leaves a staging directory, which the next command removes with all that no image
//! uses.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result, system};
use crate::form::{Form, Ownership};
use crate::inventory::Record;
use crate::oci::{Descriptor, Document, FULL_NAME, ManifestOrIndex, Platform, REF_NAME, media};

/// The version of `images/*.json`, `references` and `layer.json`.
const VERSION: u32 = 1;
const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// The store of images below one root directory.
#[derive(Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) form: Form,
}

/// As long as this lives, no layer is removed. A flock(2), so it ends with the process.
#[derive(Debug)]
pub struct Hold {
    _lock: OwnedFd,
}

/// The owner and mode of an image's root directory, which the topmost layer that has an entry for it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDirectory {
    /// Permission bits with the sticky bit.
    pub mode: u32,
    /// Owner in the image.
    pub uid: u32,
    /// Group in the image.
    pub gid: u32,
}

impl RootDirectory {
    /// Where no layer says: as docker makes it.
    pub(crate) const DEFAULT: Self = Self { mode: 0o755, uid: 0, gid: 0 };

    pub(crate) fn of(record: &Record) -> Self {
        Self { mode: record.mode, uid: record.uid, gid: record.gid }
    }
}

/// `images/ID.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    pub(crate) id: Digest,
    pub(crate) manifest: Descriptor,
    pub(crate) platform: Platform,
    pub(crate) created: Option<String>,
    /// Bytes of all files of all layers.
    pub(crate) size: u64,
    pub(crate) root: RootDirectory,
    /// Keys of all layers, bottom first.
    pub(crate) layers: Vec<String>,
    /// Keys of those that are mounted, bottom first: none twice, none below an opaque root.
    pub(crate) mounted: Vec<String>,
    /// Where it came from.
    #[serde(default)]
    pub(crate) origin: Origin,
}

/// The registries that an image was fetched from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Host and path of each repository, the latest last; empty where it came from an archive.
    pub(crate) repositories: Vec<String>,
    /// How many of its layers they have, from the bottom: what `commit` puts on top is nowhere else.
    pub(crate) layers: usize,
}

/// A file below `references/`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReferenceRecord {
    pub(crate) version: u32,
    /// Canonical.
    pub(crate) reference: String,
    /// The manifest or index that the name means.
    pub(crate) target: Descriptor,
    pub(crate) images: Vec<PlatformImage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlatformImage {
    pub(crate) platform: Platform,
    pub(crate) id: Digest,
}

/// `layers/KEY/layer.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) version: u32,
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    pub(crate) opaque_root: bool,
    pub(crate) root: Option<RootDirectory>,
}

/// Records that carry a version.
pub(crate) trait Versioned {
    fn version(&self) -> u32;
}

impl Versioned for ImageRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

impl Versioned for ReferenceRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

impl Versioned for LayerRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

pub(crate) const fn version() -> u32 {
    VERSION
}

impl Store {
    /// Opens the store below `root` (`/var/lib/coracle`), making it where it is not, and removes what a killed command left.
    ///
    /// Costs one directory to read where nothing was left.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_as(root, Form::of_this_process()?)
    }

    /// The same for a process that runs containers in user namespaces with a range of ids, but is in none itself: layers are
    /// found as they were unpacked in there.
    pub fn open_for_range(root: &Path) -> Result<Self> {
        Self::open_as(root, Form { ownership: Ownership::Real, in_user_namespace: true })
    }

    fn open_as(root: &Path, form: Form) -> Result<Self> {
        let store = Self { root: root.join("image"), form };
        match store.stale_staging() {
            Ok(stale) if stale.is_empty() => {}
            // A full disk must not keep `rmi` from freeing it: what cannot be cleaned now the next command cleans.
            Ok(stale) => {
                store.clean(stale).or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })?
            }
            Err(Error::File(error)) if error.kind() == std::io::ErrorKind::NotFound => store.create()?,
            Err(error) => return Err(error),
        }
        Ok(store)
    }

    /// Whether layers unpacked by this process have the owners that the image says.
    pub fn ownership(&self) -> Ownership {
        self.form.ownership
    }

    /// The directory with `index.json`: an OCI layout.
    pub fn layout(&self) -> &Path {
        &self.root
    }

    /// Keeps all layers in place until the result is dropped. `run` holds it from resolving an image until the container's
    /// record names it.
    pub fn hold(&self) -> Result<Hold> {
        self.lock("use.lock", FlockOperation::LockShared)
    }

    /// Runs `work` with a staging directory, which is gone afterwards. Where it fails, so is all that it had already put in
    /// place and that no image uses.
    pub(crate) fn staged<T>(&self, work: impl FnOnce(&Staging) -> Result<T>) -> Result<T> {
        let staging = Staging::create(self)?;
        let result = work(&staging);
        match &result {
            Ok(_) => staging.discard()?,
            // The error that matters is the first one; what cannot be cleaned now the next command cleans.
            Err(_) => drop(self.clean(vec![staging])),
        }
        result
    }

    pub(crate) fn hold_alone(&self) -> Result<Hold> {
        self.lock("use.lock", FlockOperation::LockExclusive)
    }

    pub(crate) fn commit_lock(&self) -> Result<Hold> {
        self.lock("commit.lock", FlockOperation::LockExclusive)
    }

    fn lock(&self, name: &str, operation: FlockOperation) -> Result<Hold> {
        let path = self.root.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(system("open", &path))?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(system("flock", &path)(errno)),
                Ok(()) => return Ok(Hold { _lock: file }),
            }
        }
    }

    fn create(&self) -> Result<()> {
        if let Some(parent) = self.root.parent() {
            fs_err::create_dir_all(parent)?;
        }
        // What is inside needs no protection of its own: nobody else gets past this directory.
        match rustix::fs::mkdir(&self.root, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(system("mkdir", &self.root)(errno)),
        }
        for name in ["blobs/sha256", "layers", "images", "references"] {
            fs_err::create_dir_all(self.root.join(name))?;
        }
        // Made now, since cleaning up on a full disk needs them.
        drop((self.hold()?, self.commit_lock()?));
        let layout = self.root.join("oci-layout");
        if !layout.exists() {
            fs_err::write(layout, LAYOUT)?;
            self.write_index()?;
        }
        // The last one, since its presence says that all is there.
        Ok(fs_err::create_dir_all(self.root.join("staging"))?)
    }

    /// Staging directories that nobody locks, with the lock on each taken.
    fn stale_staging(&self) -> Result<Vec<Staging>> {
        let mut stale = Vec::new();
        for entry in fs_err::read_dir(self.root.join("staging"))? {
            if let Some(staging) = Staging::take(entry?.path())? {
                stale.push(staging);
            }
        }
        Ok(stale)
    }

    fn clean(&self, stale: Vec<Staging>) -> Result<()> {
        // While another load runs, what it has just committed may look unused; the next command will do it.
        let alone = match self.lock("use.lock", FlockOperation::NonBlockingLockExclusive) {
            Ok(hold) => hold,
            Err(Error::System(error)) if error.errno() == Errno::WOULDBLOCK => return Ok(()),
            Err(error) => return Err(error),
        };
        let _commit = self.commit_lock()?;
        let names = self.reference_records()?;
        for staging in &stale {
            if let Some(id) = staging.announced()
                && !names.iter().any(|name| name.images.iter().any(|image| image.id == id))
            {
                remove_if_there(&self.image_path(id))?;
            }
            // What may fill the disk goes first: the index needs a little space.
            staging.empty()?;
        }
        self.collect_garbage()?;
        self.write_index()?;
        stale.into_iter().try_for_each(Staging::discard)?;
        drop(alone);
        Ok(())
    }

    pub(crate) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Where a registry's blob is gathered until it is whole. Its length is part of the name, so that no manifest which is wrong about
    /// it touches what another one fetches.
    pub(crate) fn partial_path(&self, digest: Digest, size: u64) -> PathBuf {
        self.root.join("partial").join(format!("{}-{size}", digest.hex()))
    }

    /// Removes what came of blobs that nobody fetches now and that nobody has fetched for so long.
    pub(crate) fn forget_partials(&self, age: Duration) -> Result<()> {
        let entries = match fs_err::read_dir(self.root.join("partial")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let path = entry?.path();
            // Another command may have been faster.
            let Ok(file) = fs_err::File::open(&path) else { continue };
            let is_old = file.metadata()?.modified()?.elapsed().is_ok_and(|passed| passed >= age);
            if is_old && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn layer_path(&self, key: &str) -> PathBuf {
        self.root.join("layers").join(key)
    }

    pub(crate) fn image_path(&self, id: Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", id.hex()))
    }

    pub(crate) fn image_record(&self, id: Digest) -> Result<ImageRecord> {
        read_record(&self.image_path(id))
    }

    /// All images' records, in no order.
    pub(crate) fn image_records(&self) -> Result<Vec<ImageRecord>> {
        self.image_ids()?.into_iter().map(|id| self.image_record(id)).collect()
    }

    pub(crate) fn image_ids(&self) -> Result<Vec<Digest>> {
        let mut ids = Vec::new();
        for entry in fs_err::read_dir(self.root.join("images"))? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| Digest::from_hex(name.strip_suffix(".json")?)));
        }
        Ok(ids)
    }

    /// All names' records, sorted by name.
    pub(crate) fn reference_records(&self) -> Result<Vec<ReferenceRecord>> {
        self.reference_paths()?.iter().map(|path| read_record(path)).collect()
    }

    /// The files of all names' records.
    pub(crate) fn reference_paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let mut directories = vec![self.root.join("references")];
        while let Some(directory) = directories.pop() {
            for entry in fs_err::read_dir(&directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                } else {
                    paths.push(entry.path());
                }
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Writes `index.json` anew. The caller holds the commit lock.
    ///
    /// On a full disk one that is no longer than before is written over the old one: after a removal it needs no space.
    pub(crate) fn write_index(&self) -> Result<()> {
        let text = self.index()?;
        let (path, temporary) = (self.root.join("index.json"), self.root.join(".index.json"));
        let written = fs_err::write(&temporary, &text).and_then(|()| fs_err::rename(&temporary, &path));
        let Err(error) = written.map_err(Error::File) else { return Ok(()) };
        // The error that matters is the first one.
        drop(remove_if_there(&temporary));
        match fs_err::metadata(&path) {
            Ok(old) if error.is_full() && text.len() as u64 <= old.len() => {
                let mut file = fs_err::OpenOptions::new().write(true).open(&path)?;
                file.write_all(&text)?;
                Ok(file.set_len(text.len() as u64)?)
            }
            _ => Err(error),
        }
    }

    /// What `index.json` is to be.
    pub(crate) fn index(&self) -> Result<Vec<u8>> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Index {
            schema_version: u32,
            media_type: &'static str,
            manifests: Vec<Descriptor>,
        }
        let mut manifests = Vec::new();
        let mut named = BTreeSet::new();
        for record in self.reference_records()? {
            named.extend(record.images.iter().map(|image| image.id));
            let mut descriptor = record.target;
            for key in [REF_NAME, FULL_NAME] {
                descriptor.annotations.insert(key.to_owned(), record.reference.clone());
            }
            manifests.push(descriptor);
        }
        for record in self.image_records()? {
            if !named.contains(&record.id) {
                manifests.push(record.manifest);
            }
        }
        Ok(to_json(&Index { schema_version: 2, media_type: media::INDEX, manifests }))
    }

    /// Removes layers and blobs that no image and no name uses. The caller holds both locks alone.
    pub(crate) fn collect_garbage(&self) -> Result<()> {
        let (layers, blobs) = self.unused()?;
        remove_empty_below(&self.root.join("references"))?;
        for name in layers {
            fs_err::remove_dir_all(self.root.join("layers").join(name))?;
        }
        for name in blobs {
            fs_err::remove_file(self.root.join("blobs/sha256").join(name))?;
        }
        Ok(())
    }

    /// The names of the layers and of the blobs that no image and no name uses.
    pub(crate) fn unused(&self) -> Result<(Vec<String>, Vec<String>)> {
        let mut blobs = BTreeSet::new();
        let mut layers = BTreeSet::new();
        for record in self.image_records()? {
            layers.extend(record.layers);
            blobs.insert(record.id);
            self.mark(&record.manifest, &mut blobs, 0);
        }
        for record in self.reference_records()? {
            self.mark(&record.target, &mut blobs, 0);
        }
        let names = |directory: &str| -> Result<Vec<String>> {
            let entries = fs_err::read_dir(self.root.join(directory))?;
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        let (mut unused_layers, mut unused_blobs) = (names("layers")?, names("blobs/sha256")?);
        unused_layers.retain(|name| !layers.contains(name));
        unused_blobs.retain(|name| Digest::from_hex(name).is_none_or(|digest| !blobs.contains(&digest)));
        Ok((unused_layers, unused_blobs))
    }

    /// Marks a manifest or index and all that it leads to. What is not here (other platforms) is not followed.
    pub(crate) fn mark(&self, descriptor: &Descriptor, blobs: &mut BTreeSet<Digest>, depth: usize) {
        if !blobs.insert(descriptor.digest) || depth > 8 {
            return;
        }
        let Ok(bytes) = fs_err::read(self.blob_path(descriptor.digest)) else { return };
        let Ok(document) = serde_json::from_slice::<ManifestOrIndex>(&bytes) else { return };
        match document.document(descriptor.digest) {
            Ok(Document::Manifest { config, layers }) => {
                blobs.insert(config.digest);
                blobs.extend(layers.iter().map(|layer| layer.digest));
            }
            Ok(Document::Index(manifests)) => {
                manifests.iter().for_each(|manifest| self.mark(manifest, blobs, depth + 1));
            }
            Err(_) => {}
        }
    }
}

/// A directory for what is not complete yet. Its lock says that somebody works in it.
///
/// Dropped without [`Staging::discard`], it is rubbish for the next command, which then also looks for what was put in place
/// without being used.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) path: PathBuf,
    lock: OwnedFd,
}

impl Staging {
    pub(crate) fn create(store: &Store) -> Result<Self> {
        loop {
            let mut random = [0; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
                .map_err(system("getrandom", "a staging directory's name"))?;
            let path = store.root.join("staging").join(crate::digest::hex(&random));
            fs_err::create_dir(&path)?;
            // Between the two calls a cleaner may have taken it for rubbish.
            if let Some(staging) = Self::take(path)? {
                return Ok(staging);
            }
        }
    }

    /// Locks a staging directory; None when somebody else does or it is gone.
    fn take(path: PathBuf) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(lock) => lock,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(system("open", &path)(errno)),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if path.is_dir() => Ok(Some(Self { path, lock })),
            Ok(()) | Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(system("flock", &path)(errno)),
        }
    }

    /// Removes the directory.
    pub(crate) fn discard(self) -> Result<()> {
        Ok(fs_err::remove_dir_all(&self.path)?)
    }

    /// Notes that this work is about to add an image, which is not to stay if it gets no name because the work is cut off.
    pub(crate) fn announce(&self, id: Digest) -> Result<()> {
        Ok(fs_err::write(self.path.join("announced"), id.hex())?)
    }

    fn announced(&self) -> Option<Digest> {
        Digest::from_hex(&fs_err::read_to_string(self.path.join("announced")).ok()?)
    }

    /// Removes what is in the directory.
    fn empty(&self) -> Result<()> {
        for entry in fs_err::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs_err::remove_dir_all(entry.path())?;
            } else {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Makes all that was written so far durable: syncfs(2).
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.lock).map_err(system("syncfs", &self.path))
    }

    /// Writes a record where it belongs, durably: the file, its new name, and the directories above it.
    pub(crate) fn publish(&self, bytes: &[u8], target: &Path) -> Result<()> {
        let temporary = self.path.join("record");
        let mut file = fs_err::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if let Some(parent) = target.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::rename(&temporary, target)?;
        sync_parents(target, 1)
    }
}

pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::File(error)),
        _ => Ok(()),
    }
}

/// Removes the empty directories below `path`: of names that were taken away or never written.
fn remove_empty_below(path: &Path) -> Result<()> {
    for entry in fs_err::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty_below(&entry.path())?;
            if fs_err::read_dir(entry.path())?.next().is_none() {
                fs_err::remove_dir(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Makes the names of a file and of `levels - 1` directories above it durable.
pub(crate) fn sync_parents(path: &Path, levels: usize) -> Result<()> {
    for parent in path.ancestors().skip(1).take(levels) {
        fs_err::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Strings and numbers cannot fail to be written to memory.
    serde_json::to_vec(value).unwrap_or_default()
}

pub(crate) fn read_record<T: DeserializeOwned + Versioned>(path: &Path) -> Result<T> {
    let bytes = fs_err::read(path)?;
    let bad = |reason: String| Error::BadRecord { path: path.to_owned(), reason };
    let record: T = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    match record.version() {
        VERSION => Ok(record),
        version => Err(bad(format!("its version is {version}, this coracle reads {VERSION}"))),
    }
}
