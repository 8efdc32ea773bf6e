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
//!   listing.json listing.old     our own index: what `images` prints; can be removed at any time
//! ```
//!
//! What a name leads to is complete, because the name is written last: staged, made durable, renamed, and the directory made
//! durable. A killed load leaves a staging directory, which the next command removes with all that no image
//! uses.
//!
//! Locks are held for moments. `commit.lock` is held alone by who changes what is here, and shared by who writes down in its staging directory
//! what it counts on ([`Store::pin`]); garbage collection leaves that in place. `use.lock` is shared by who makes a container, and
//! held alone by who removes images.

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
use crate::listing::Listing;
use crate::oci::{Descriptor, Document, FULL_NAME, ManifestOrIndex, Platform, REF_NAME, media};
use crate::source::DOCUMENT_MAX;
use crate::staging::Staging;

/// The version of `images/*.json`, `references` and `layer.json`.
const VERSION: u32 = 1;
const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// What an image may add to the index, and more than that.
const RESERVE: u64 = 16 << 10;

/// The store of images below one root directory.
#[derive(Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) form: Form,
}

/// As long as this lives, no image is removed. A flock(2), so it ends with the process.
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
            // A full disk must not keep `rmi` from freeing it, nor a record that cannot be read `system check` from mending it: what
            // cannot be cleaned now the next command cleans.
            Ok(stale) => match store.clean(stale) {
                Err(error) if !error.is_full() && !matches!(error, Error::BadRecord { .. }) => {
                    return Err(error);
                }
                _ => {}
            },
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

    /// Keeps all images in place until the result is dropped. `run` holds it from resolving an image until the container's
    /// record names it: for moments only, as whoever removes an image waits.
    pub fn hold(&self) -> Result<Hold> {
        self.lock("use.lock", FlockOperation::LockShared)
    }

    /// Runs `work` with a staging directory, which is gone afterwards. Where it fails, so is all that it had already put in
    /// place and that no image uses.
    pub(crate) fn staged<T>(&self, work: impl FnOnce(&Staging) -> Result<T>) -> Result<T> {
        let staging = Staging::create(self)?;
        let result = work(&staging);
        match &result {
            Ok(_) => self.leave(staging)?,
            // The error that matters is the first one; what cannot be cleaned now the next command cleans.
            Err(_) => drop(self.clean(vec![staging])),
        }
        result
    }

    /// Keeps the layers and blobs that `look` names in place as long as the staging directory is there, and gives what it found. No garbage is
    /// collected while it looks.
    pub(crate) fn pin<T>(
        &self,
        staging: &Staging,
        look: impl FnOnce() -> Result<(T, BTreeSet<String>)>,
    ) -> Result<T> {
        let _moment = self.moment()?;
        let (found, needed) = look()?;
        staging.add_pins(&needed)?;
        Ok(found)
    }

    /// Runs `work` on the images that `find` finds. Their layers and blobs stay in place meanwhile, whoever removes the images.
    pub(crate) fn keeping<T>(
        &self,
        find: impl Fn() -> Result<Vec<ImageRecord>>,
        work: impl FnOnce(Vec<ImageRecord>) -> Result<T>,
    ) -> Result<T> {
        let look = || {
            let records = find()?;
            let mut names = BTreeSet::new();
            for record in &records {
                let mut blobs = BTreeSet::new();
                self.mark(&record.manifest, &mut blobs, 0);
                names.extend(blobs.iter().map(Digest::hex));
                names.extend(record.layers.iter().cloned());
            }
            Ok((records, names))
        };
        match Staging::create(self).and_then(|staging| Ok((self.pin(&staging, look)?, staging))) {
            Ok((records, staging)) => {
                let result = work(records);
                self.leave(staging)?;
                result
            }
            // Where nothing can be written down, whoever removes an image has to wait.
            Err(error) if error.is_full() => {
                let _hold = self.hold()?;
                work(find()?)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends a staging directory whose work went well. What was left in place for it alone goes with it.
    fn leave(&self, staging: Staging) -> Result<()> {
        if staging.has_pins() {
            let moment = self.moment()?;
            let is_owed = staging.unpin()?;
            drop(moment);
            if is_owed {
                return self.clean(vec![staging]);
            }
        }
        staging.discard()
    }

    /// Waits until no container is being made, and lets none be made until the result is dropped.
    pub(crate) fn hold_alone(&self) -> Result<Hold> {
        self.lock("use.lock", FlockOperation::LockExclusive)
    }

    pub(crate) fn commit_lock(&self) -> Result<Hold> {
        let lock = self.lock("commit.lock", FlockOperation::LockExclusive)?;
        self.take_listing()?;
        Ok(lock)
    }

    /// Keeps all that is here in place until the result is dropped: whoever takes something away, or puts something in its place, waits.
    pub(crate) fn moment(&self) -> Result<Hold> {
        self.lock("commit.lock", FlockOperation::LockShared)
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

    /// Takes the space that the indexes may need: a file to be removed before they are written.
    pub(crate) fn reserve(&self, staging: &Staging) -> Result<PathBuf> {
        staging.reserve(fs_err::metadata(self.root.join("index.json")).map_or(0, |old| old.len()) + RESERVE)
    }

    /// Writes `index.json` and the index of our own anew. The caller holds the commit lock.
    pub(crate) fn write_index(&self) -> Result<()> {
        self.write_indexes(&self.make_listing()?)
    }

    /// On a full disk an `index.json` that is no longer than before is written over the old one: after a removal it needs no space.
    pub(crate) fn write_indexes(&self, listing: &Listing) -> Result<()> {
        let text = index(listing);
        let result = self.write_index_json(&text);
        // This one may take what space is left.
        self.keep_listing(listing);
        result
    }

    fn write_index_json(&self, text: &[u8]) -> Result<()> {
        let (path, temporary) = (self.root.join("index.json"), self.root.join(".index.json"));
        let written = fs_err::write(&temporary, text).and_then(|()| fs_err::rename(&temporary, &path));
        let Err(error) = written.map_err(Error::File) else { return Ok(()) };
        // The error that matters is the first one.
        drop(remove_if_there(&temporary));
        match fs_err::metadata(&path) {
            Ok(old) if error.is_full() && text.len() as u64 <= old.len() => {
                let mut file = fs_err::OpenOptions::new().write(true).open(&path)?;
                file.write_all(text)?;
                Ok(file.set_len(text.len() as u64)?)
            }
            _ => Err(error),
        }
    }

    /// Marks a manifest or index and all that it leads to. What is not here (other platforms) is not followed.
    ///
    /// False: what is here is damaged, so that it is not known what it leads to.
    pub(crate) fn mark(&self, descriptor: &Descriptor, blobs: &mut BTreeSet<Digest>, depth: usize) -> bool {
        if !blobs.insert(descriptor.digest) || depth > 8 {
            return true;
        }
        let path = self.blob_path(descriptor.digest);
        match fs_err::metadata(&path) {
            // What is longer was never taken for one.
            Ok(known) if known.len() > DOCUMENT_MAX => return true,
            Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
            Ok(_) => {}
        }
        let Ok(bytes) = fs_err::read(&path) else { return false };
        if Digest::of(&bytes) != descriptor.digest {
            return false;
        }
        let document = serde_json::from_slice::<ManifestOrIndex>(&bytes).ok();
        match document.and_then(|document| document.document(descriptor.digest).ok()) {
            Some(Document::Manifest { config, layers }) => {
                blobs.insert(config.digest);
                blobs.extend(layers.iter().map(|layer| layer.digest));
                true
            }
            Some(Document::Index(manifests)) => {
                let mut are_known = true;
                for manifest in &manifests {
                    are_known &= self.mark(manifest, blobs, depth + 1);
                }
                are_known
            }
            None => true,
        }
    }
}

/// The text of `index.json`.
pub(crate) fn index(listing: &Listing) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index {
        schema_version: u32,
        media_type: &'static str,
        manifests: Vec<Descriptor>,
    }
    let named = listing.names().into_iter().map(|record| {
        let mut descriptor = record.target.clone();
        for key in [REF_NAME, FULL_NAME] {
            descriptor.annotations.insert(key.to_owned(), record.reference.clone());
        }
        descriptor
    });
    let manifests = named.chain(listing.nameless().map(|image| image.manifest.clone())).collect();
    to_json(&Index { schema_version: 2, media_type: media::INDEX, manifests })
}

pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::File(error)),
        _ => Ok(()),
    }
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
