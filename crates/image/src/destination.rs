//! Where copies go: a registry, an OCI layout, an archive, a `dir:`.
//!
//! What is not complete has another name than what is: nothing of it is left behind when a copy fails, and what was there before stays.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err::File;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::digest::{Digest, hex};
use crate::error::{Error, Result, system};
use crate::freight::{Freight, Passage, Root, read_manifest};
use crate::oci::{Descriptor, Document, FULL_NAME, Platform, REF_NAME, media};
use crate::reference::Reference;
use crate::registry::{Repository, Sent};
use crate::store::to_json;

const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
/// containers-transports(5): what `version` of a `dir:` says.
const HEX_VERSION: &[u8] = b"Directory Transport Version: 1.1\n";
/// What the file `version` of any such directory begins with.
const HEX_KIND: &[u8] = b"Directory Transport Version:";

/// An opened destination.
pub(crate) enum Destination {
    Registry(Remote),
    Layout(Layout),
    Hex(Hex),
    Archive(Archive),
}

impl Destination {
    /// Whether blobs may come side by side.
    pub(crate) fn takes_many(&self) -> bool {
        !matches!(self, Self::Archive(_))
    }

    pub(crate) fn send(&self, passage: &Passage<'_>) -> Result<Sent> {
        match self {
            Self::Registry(remote) => remote.send(passage),
            Self::Layout(layout) => layout.files.place(&layout.blobs, passage),
            Self::Hex(hex) => hex.files.place(&hex.path, passage),
            Self::Archive(archive) => archive.send(passage),
        }
    }

    /// Adds the documents, and last what says that all is there.
    pub(crate) fn finish(self, freight: &Freight) -> Result<()> {
        match self {
            Self::Registry(remote) => remote.finish(freight),
            Self::Layout(layout) => layout.finish(freight),
            Self::Hex(hex) => hex.finish(freight),
            Self::Archive(archive) => archive.finish(freight),
        }
    }
}

/// A repository of a registry.
pub(crate) struct Remote {
    pub(crate) repository: Arc<Repository>,
    pub(crate) name: Reference,
    /// Which other repository of the registry may have a blob.
    pub(crate) elsewhere: BTreeMap<Digest, String>,
}

impl Remote {
    fn send(&self, passage: &Passage<'_>) -> Result<Sent> {
        let from = self.elsewhere.get(&passage.digest());
        self.repository.send_blob(passage, from.map(String::as_str))
    }

    fn finish(&self, freight: &Freight) -> Result<()> {
        let root = freight.roots.first().map(|root| root.descriptor.digest);
        if let (Some(expected), Some(found)) = (self.name.digest(), root)
            && expected != found
        {
            return Err(Error::DigestMismatch { blob: "what is sent".to_owned(), expected, found });
        }
        for (descriptor, bytes) in &freight.documents {
            let is_root = Some(descriptor.digest) == root;
            self.repository.send_manifest(descriptor, bytes, self.name.tag().filter(|_| is_root))?;
        }
        Ok(())
    }
}

/// Files that are put where they belong; those that were not there before go again where the copy fails.
#[derive(Default)]
struct NewFiles {
    made: Mutex<Vec<PathBuf>>,
}

impl NewFiles {
    fn note(&self, path: &Path) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
    }

    /// Makes a directory with those above it.
    fn make_directory(&self, path: &Path) -> Result<()> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.note(path),
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) if path.parent().is_some_and(|parent| parent != Path::new("")) => {
                path.parent().map_or(Ok(()), |parent| self.make_directory(parent))?;
                return self.make_directory(path);
            }
            Err(errno) => return Err(system("mkdir", path)(errno)),
        }
        Ok(())
    }

    /// Writes a blob into `directory`.
    fn place(&self, directory: &Path, passage: &Passage<'_>) -> Result<Sent> {
        let path = directory.join(passage.digest().hex());
        if fs_err::metadata(&path).is_ok_and(|known| known.is_file() && known.len() == passage.size()) {
            return Ok(Sent::Already);
        }
        self.write(&path, |file| {
            passage.begin(0);
            let copied = passage.reader(0, passage.size()).and_then(|mut reader| io::copy(&mut reader, file));
            if let Some(error) = passage.failure() {
                return Err(error);
            }
            copied?;
            passage.finish()
        })?;
        Ok(Sent::Whole)
    }

    fn write_bytes(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.write(path, |file| Ok(file.write_all(bytes)?))
    }

    /// Writes a file that has its name when it is whole.
    fn write(&self, path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
        let is_new = !path.exists();
        let (file, name) = NewName::create(path)?;
        let mut file = BufWriter::with_capacity(256 << 10, file);
        fill(&mut file)?;
        file.flush()?;
        name.give(file.get_ref())?;
        if is_new {
            self.note(path);
        }
        Ok(())
    }

    fn keep(&self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in self.made.lock().unwrap_or_else(PoisonError::into_inner).drain(..).rev() {
            // A directory that somebody else has put something into stays.
            let _ = fs_err::remove_file(&path).or_else(|_| fs_err::remove_dir(&path));
        }
    }
}

/// The name of a file that is being written: it gets it when it is whole, in place of what had it before.
struct NewName {
    path: PathBuf,
    /// The name that it has until then. None: it has none, and goes with this process.
    temporary: Option<PathBuf>,
}

impl NewName {
    fn create(path: &Path) -> Result<(File, Self)> {
        let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::open(parent, flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => {
                let file = File::from_parts(file.into(), path);
                Ok((file, Self { path: path.to_owned(), temporary: None }))
            }
            // Not every file system has files without names.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let temporary = beside(path)?;
                let file = File::create(&temporary)?;
                Ok((file, Self { path: path.to_owned(), temporary: Some(temporary) }))
            }
            Err(errno) => Err(system("open", parent)(errno)),
        }
    }

    /// Makes the file durable and gives it its name.
    fn give(mut self, file: &File) -> Result<()> {
        file.sync_all()?;
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => {
                let temporary = beside(&self.path)?;
                let unnamed = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
                rustix::fs::linkat(CWD, unnamed, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)
                    .map_err(system("linkat", &temporary))?;
                temporary
            }
        };
        let renamed = fs_err::rename(&temporary, &self.path);
        self.temporary = renamed.is_err().then_some(temporary);
        Ok(renamed?)
    }
}

impl Drop for NewName {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs_err::remove_file(temporary);
        }
    }
}

/// A name beside `path` that nobody else takes.
fn beside(path: &Path) -> Result<PathBuf> {
    let mut random = [0; 6];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(system("getrandom", path))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(path.with_file_name(format!(".{name}.{}", hex(&random))))
}

/// An OCI layout.
pub(crate) struct Layout {
    files: NewFiles,
    path: PathBuf,
    blobs: PathBuf,
    tag: Option<String>,
}

impl Layout {
    pub(crate) fn open(path: &Path, tag: Option<&str>) -> Result<Self> {
        let files = NewFiles::default();
        let blobs = path.join("blobs/sha256");
        let is_other = fs_err::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
            && !path.join("oci-layout").exists();
        if is_other {
            return Err(Error::NotADestination {
                path: path.to_owned(),
                reason: "it is no OCI layout, but has other files",
            });
        }
        files.make_directory(&blobs)?;
        Ok(Self { files, path: path.to_owned(), blobs, tag: tag.map(str::to_owned) })
    }

    fn finish(self, freight: &Freight) -> Result<()> {
        for (descriptor, bytes) in &freight.documents {
            let path = self.blobs.join(descriptor.digest.hex());
            if !path.exists() {
                self.files.write_bytes(&path, bytes)?;
            }
        }
        if !self.path.join("oci-layout").exists() {
            self.files.write_bytes(&self.path.join("oci-layout"), LAYOUT)?;
        }
        let path = self.path.join("index.json");
        let mut index: Value = match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| Error::BadJson { document: path.display().to_string(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => index(Vec::new()),
            Err(error) => return Err(Error::File(error)),
        };
        if !index["manifests"].is_array() {
            return Err(Error::NotADestination { path, reason: "it is not an index of images" });
        }
        if let Some(entries) = index["manifests"].as_array_mut() {
            for new in freight.roots.iter().flat_map(|root| entries_of(root, self.tag.as_deref())) {
                let name = new["annotations"][REF_NAME].clone();
                entries.retain(|known| {
                    let is_same = known["annotations"][REF_NAME] == name;
                    !(is_same && (!name.is_null() || known["digest"] == new["digest"]))
                });
                entries.push(new);
            }
        }
        self.files.write_bytes(&path, &to_json(&index))?;
        self.files.keep();
        Ok(())
    }
}

fn index(entries: Vec<Value>) -> Value {
    json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries })
}

/// The entries of a layout's index for what is copied: one for each name.
fn entries_of(root: &Root, tag: Option<&str>) -> Vec<Value> {
    let entry = |names: &[(&str, String)]| {
        let mut entry = json!(root.descriptor);
        for (key, name) in names {
            entry["annotations"][*key] = json!(name);
        }
        entry
    };
    match tag {
        Some(tag) => vec![entry(&[(REF_NAME, tag.to_owned())])],
        None if root.names.is_empty() => vec![entry(&[])],
        None => {
            let both = |name: &Reference| [(REF_NAME, name.canonical()), (FULL_NAME, name.canonical())];
            root.names.iter().map(|name| entry(&both(name))).collect()
        }
    }
}

/// A `dir:`.
pub(crate) struct Hex {
    files: NewFiles,
    path: PathBuf,
}

impl Hex {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let files = NewFiles::default();
        let is_other = fs_err::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
            && !fs_err::read(path.join("version")).is_ok_and(|version| version.starts_with(HEX_KIND));
        if is_other {
            return Err(Error::NotADestination {
                path: path.to_owned(),
                reason: "it is no dir:, but has other files",
            });
        }
        files.make_directory(path)?;
        Ok(Self { files, path: path.to_owned() })
    }

    fn finish(self, freight: &Freight) -> Result<()> {
        let Some(root) = freight.roots.first().map(|root| root.descriptor.digest) else { return Ok(()) };
        let mut known = vec!["version".to_owned(), "manifest.json".to_owned()];
        known.extend(freight.blobs.iter().map(|blob| blob.descriptor.digest.hex()));
        for (descriptor, bytes) in
            freight.documents.iter().filter(|(descriptor, _)| descriptor.digest != root)
        {
            let name = format!("{}.manifest.json", descriptor.digest.hex());
            self.files.write_bytes(&self.path.join(&name), bytes)?;
            known.push(name);
        }
        self.files.write_bytes(&self.path.join("version"), HEX_VERSION)?;
        self.files
            .write_bytes(&self.path.join("manifest.json"), freight.document(root).unwrap_or_default())?;
        self.files.keep();
        // What was there before was another image.
        for entry in fs_err::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| is_part(name) && !known.iter().any(|known| known == name))
            {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Whether a file of this name belongs to a `dir:`: others are somebody's own.
fn is_part(name: &str) -> bool {
    let hex = name.strip_suffix(".manifest.json").unwrap_or(name);
    Digest::from_hex(hex).is_some() || name.starts_with("signature-")
}

/// A tar archive of an OCI layout; with docker's list of images, a docker archive as well.
pub(crate) struct Archive {
    file: Mutex<BufWriter<File>>,
    /// None where it is written as it comes.
    name: Option<NewName>,
    tag: Option<String>,
    for_docker: bool,
}

impl Archive {
    /// `-` is the standard output, which is written as it comes, as are pipes and devices.
    pub(crate) fn open(path: &Path, tag: Option<&str>, for_docker: bool) -> Result<Self> {
        // A symbolic link stays one.
        let real = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let path = if path == Path::new("-") { path } else { &real };
        let is_stream = fs_err::metadata(path).is_ok_and(|known| {
            let kind = known.file_type();
            kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()
        });
        let (file, name) = if path == Path::new("-") {
            let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
                .map_err(system("dup", "standard output"))?;
            (File::from_parts(output.into(), "standard output"), None)
        } else if is_stream {
            (fs_err::OpenOptions::new().write(true).open(path)?, None)
        } else if path.is_dir() {
            return Err(Error::NotADestination { path: path.to_owned(), reason: "it is a directory" });
        } else {
            let (file, name) = NewName::create(path)?;
            (file, Some(name))
        };
        let mut file = BufWriter::with_capacity(256 << 10, file);
        // Those who are not root unpack it with skopeo only where it names its directories.
        for directory in ["blobs/", "blobs/sha256/"] {
            file.write_all(&header(directory, 0, b'5'))?;
        }
        Ok(Self { file: Mutex::new(file), name, tag: tag.map(str::to_owned), for_docker })
    }

    fn send(&self, passage: &Passage<'_>) -> Result<Sent> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        passage.begin(0);
        file.write_all(&header(&blob_name(passage.digest()), passage.size(), b'0'))?;
        let copied =
            passage.reader(0, passage.size()).and_then(|mut reader| io::copy(&mut reader, &mut *file));
        if let Some(error) = passage.failure() {
            return Err(error);
        }
        copied?;
        passage.finish()?;
        file.write_all(padding(passage.size()))?;
        Ok(Sent::Whole)
    }

    fn finish(self, freight: &Freight) -> Result<()> {
        let mut file = self.file.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut add = |name: &str, bytes: &[u8]| -> Result<()> {
            file.write_all(&header(name, bytes.len() as u64, b'0'))?;
            file.write_all(bytes)?;
            Ok(file.write_all(padding(bytes.len() as u64))?)
        };
        for (descriptor, bytes) in &freight.documents {
            add(&blob_name(descriptor.digest), bytes)?;
        }
        let of_root = |root: &Root| entries_of(root, self.tag.as_deref().filter(|_| !self.for_docker));
        add("index.json", &to_json(&index(freight.roots.iter().flat_map(of_root).collect())))?;
        if self.for_docker {
            let images: Result<Vec<Value>> =
                freight.roots.iter().map(|root| docker_entry(freight, root)).collect();
            add("manifest.json", &to_json(&images?))?;
        }
        add("oci-layout", LAYOUT)?;
        file.write_all(&[0; 1024])?;
        file.flush()?;
        match self.name {
            Some(name) => name.give(file.get_ref()),
            None => Ok(()),
        }
    }
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// An entry of docker's list: of an index, the image for this machine, or the first one.
fn docker_entry(freight: &Freight, root: &Root) -> Result<Value> {
    let (config, layers) = image_of(freight, &root.descriptor)?;
    if let Some(other) = layers.iter().find(|layer| !layer.media_type.contains("tar")) {
        let reason = "a docker archive holds nothing but images of root file systems";
        return Err(Error::NoSuchForm { digest: other.digest, reason });
    }
    // Whole names: podman takes short ones for its own `localhost/`.
    let tagged = root.names.iter().filter(|name| name.digest().is_none());
    let names: Vec<String> = tagged.map(Reference::canonical).collect();
    let layers: Vec<String> = layers.iter().map(|layer| blob_name(layer.digest)).collect();
    Ok(json!({ "Config": blob_name(config.digest), "RepoTags": names, "Layers": layers }))
}

fn image_of(freight: &Freight, descriptor: &Descriptor) -> Result<(Descriptor, Vec<Descriptor>)> {
    let bytes = freight.document(descriptor.digest).unwrap_or_default();
    match read_manifest(descriptor.digest, bytes)? {
        Document::Manifest { config, layers } => Ok((config, layers)),
        Document::Index(entries) => {
            let host = Platform::host();
            let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|one| host.accepts(one));
            let chosen = entries.iter().find(fits).or(entries.first());
            let empty = Error::BadManifest { digest: descriptor.digest, reason: "it names no image" };
            image_of(freight, chosen.ok_or(empty)?)
        }
    }
}

/// The block before an entry: ustar, with what it says of owner and time left at nothing, so that equal images make equal archives.
fn header(name: &str, size: u64, kind: u8) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        // GNU's form for what eleven octal digits do not hold.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; 512] = [0; 512];
    &ZEROS[..((512 - size % 512) % 512) as usize]
}
