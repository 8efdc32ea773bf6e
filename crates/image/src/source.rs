//! Where images are loaded from: OCI layouts, as directories or archives, and docker archives.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use fs_err::File;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Error, Result, system};
use crate::freight::{Elsewhere, Payload};
use crate::load::LoadOptions;
use crate::oci::Descriptor;
use crate::reference::Reference;
use crate::registry::{Access, Repository};
use crate::stream::{Budget, Compression, Limits, Pipe, Range};
use crate::tar::{self, Kind};

/// The most bytes of a manifest or configuration: docker's limit.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;

/// A source of images as the user named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `oci:DIR[:TAG]`: an OCI layout.
    OciDirectory {
        /// The directory.
        path: PathBuf,
        /// Only this image of it.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: a tar archive of an OCI layout.
    OciArchive {
        /// The file; `-` is the standard input.
        path: PathBuf,
        /// Only this image of it.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:NAME:TAG]`: what `docker save` writes.
    DockerArchive {
        /// The file; `-` is the standard input.
        path: PathBuf,
        /// Only this image of it.
        tag: Option<String>,
    },
    /// `dir:DIR`: the files of one image, as `skopeo copy` writes them.
    Directory(PathBuf),
    /// `docker://NAME` or a name: an image of a registry.
    Registry(Reference),
    /// A file, or `-` for the standard input, whose bytes tell what it is; or a directory with an OCI layout.
    Any(PathBuf),
}

impl FromStr for Source {
    type Err = Error;

    /// What has no known prefix is the name of a file.
    fn from_str(text: &str) -> Result<Self> {
        let parts = |rest: &str| match rest.split_once(':') {
            Some((path, tag)) if !tag.is_empty() => (PathBuf::from(path), Some(tag.to_owned())),
            Some((path, _)) => (PathBuf::from(path), None),
            None => (PathBuf::from(rest), None),
        };
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(name.parse::<Reference>()?.or_latest()));
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = parts(rest);
            return Ok(Self::OciDirectory { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = parts(rest);
            return Ok(Self::OciArchive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, tag) = parts(rest);
            return Ok(Self::DockerArchive { path, tag });
        }
        if let Some(path) = text.strip_prefix("dir:") {
            return Ok(Self::Directory(PathBuf::from(path)));
        }
        Ok(Self::Any(PathBuf::from(text)))
    }
}

impl Source {
    /// The path of a source that has one.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Registry(_) => Path::new(""),
            Self::OciDirectory { path, .. }
            | Self::OciArchive { path, .. }
            | Self::DockerArchive { path, .. } => path,
            Self::Directory(path) | Self::Any(path) => path,
        }
    }

    pub(crate) fn tag(&self) -> Option<&str> {
        match self {
            Self::OciDirectory { tag, .. }
            | Self::OciArchive { tag, .. }
            | Self::DockerArchive { tag, .. } => tag.as_deref(),
            Self::Registry(_) | Self::Directory(_) | Self::Any(_) => None,
        }
    }

    /// The source in messages.
    pub(crate) fn name(&self) -> String {
        if let Self::Registry(reference) = self {
            reference.to_string()
        } else if self.path() == Path::new("-") {
            "standard input".to_owned()
        } else {
            self.path().display().to_string()
        }
    }

    /// What an image is called that the source calls only by a tag: the file's name up to its first dot. A stream, as
    /// `/dev/stdin` or `/proc/self/fd/3`, has no name of its own.
    pub(crate) fn base_name(&self) -> Option<String> {
        if ["/dev", "/proc"].iter().any(|place| self.path().starts_with(place)) {
            return None;
        }
        let name = self.path().file_name()?.to_str()?.to_lowercase();
        let name = name.split('.').next()?;
        (name != "-" && !name.is_empty()).then(|| name.to_owned())
    }
}

/// An opened source: files by name.
pub(crate) struct Origin {
    pub(crate) name: String,
    pub(crate) layout: Layout,
    files: Files,
    /// What the source means, and its bytes, where it means one thing.
    named: Option<(Descriptor, Vec<u8>)>,
    /// What has the blobs that are not among the files.
    elsewhere: Option<Arc<Elsewhere>>,
}

/// Where the bytes of a layer are.
pub(crate) enum Bytes {
    Local(Range),
    /// In a registry, which is asked for them by their digest.
    Remote(Arc<Repository>),
}

/// Which documents describe the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `index.json`.
    Oci,
    /// `manifest.json`.
    Docker,
    /// One manifest or index, which the source itself means: a registry's answer to a name, `manifest.json` of a `dir:`.
    Named,
}

enum Files {
    Registry(Arc<Repository>),
    Directory(OwnedFd),
    /// A `dir:`: blobs by their hexadecimal digits.
    Hex(OwnedFd),
    /// An uncompressed tar archive: where each file's bytes are.
    Archive {
        file: Arc<OwnedFd>,
        extents: HashMap<Vec<u8>, (u64, u64)>,
    },
}

impl Origin {
    /// Opens a source. Standard input that is a pipe, and archives that are compressed as a whole, are first copied into
    /// `spool`, at most `limits.bytes` of them.
    pub(crate) fn open(source: &Source, spool: &Path, options: &LoadOptions) -> Result<Self> {
        let (name, limits) = (source.name(), options.limits);
        if let Source::Registry(reference) = source {
            return Self::ask(name, reference, &options.access);
        }
        let files = match open_source(source.path())? {
            Opened::Directory(dir) if matches!(source, Source::Directory(_)) => {
                return Self::of_directory(name, dir);
            }
            Opened::Directory(dir) => Files::Directory(dir),
            Opened::File(file) => {
                let file = Arc::new(seekable(file, &name, spool, limits)?);
                Files::Archive { extents: index(&file, &name)?, file }
            }
        };
        let mut origin = Self::new(name, Layout::Oci, files);
        let (oci, docker) = (origin.has("index.json"), origin.has("manifest.json"));
        origin.layout = match source {
            Source::OciDirectory { .. } | Source::OciArchive { .. } if oci => Layout::Oci,
            Source::DockerArchive { .. } if docker => Layout::Docker,
            // Newer dockers write both; the OCI index keeps the manifests verbatim.
            Source::Any(_) if oci => Layout::Oci,
            Source::Any(_) if docker => Layout::Docker,
            Source::OciDirectory { .. } | Source::OciArchive { .. } => {
                return Err(origin.no_image("it has no index.json"));
            }
            Source::DockerArchive { .. } => return Err(origin.no_image("it has no manifest.json")),
            Source::Any(_) => return Err(origin.no_image("it has neither index.json nor manifest.json")),
            Source::Directory(_) => return Err(origin.no_image("it is no directory")),
            Source::Registry(_) => Layout::Named,
        };
        Ok(origin)
    }

    fn new(name: String, layout: Layout, files: Files) -> Self {
        Self { name, layout, files, named: None, elsewhere: None }
    }

    fn ask(name: String, reference: &Reference, access: &Access) -> Result<Self> {
        let repository = Repository::open(reference, access)?;
        let wanted = reference.digest();
        let tag = wanted
            .map_or_else(|| reference.tag().unwrap_or("latest").to_owned(), |digest| digest.to_string());
        let named = repository.manifest(&tag)?;
        if let Some(expected) = wanted.filter(|digest| *digest != named.0.digest) {
            let blob = format!("the manifest of {name}");
            return Err(Error::DigestMismatch { blob, expected, found: named.0.digest });
        }
        Ok(Self { named: Some(named), ..Self::new(name, Layout::Named, Files::Registry(repository)) })
    }

    fn of_directory(name: String, directory: OwnedFd) -> Result<Self> {
        let mut origin = Self::new(name, Layout::Named, Files::Hex(directory));
        let bytes = match origin.document("manifest.json") {
            Err(Error::Missing { .. }) => return Err(origin.no_image("it has no manifest.json")),
            other => other?,
        };
        let descriptor = Descriptor::of(&bytes, &crate::freight::media_type(&bytes));
        origin.named = Some((descriptor, bytes));
        Ok(origin)
    }

    /// The store's own blobs, of which `descriptor` is meant. `elsewhere` has those of layers that are here only unpacked.
    pub(crate) fn of_store(
        name: &str,
        root: &Path,
        descriptor: &Descriptor,
        elsewhere: Option<Arc<Elsewhere>>,
    ) -> Result<Self> {
        let Opened::Directory(dir) = open_source(root)? else {
            return Err(Error::NotAnArchive { source_name: shown(root), reason: "it is no directory" });
        };
        let mut origin =
            Self { elsewhere, ..Self::new(name.to_owned(), Layout::Named, Files::Directory(dir)) };
        let bytes = origin.document_blob(descriptor)?;
        origin.named = Some((descriptor.clone(), bytes));
        Ok(origin)
    }

    /// What the source means, if that is one thing.
    pub(crate) fn named(&self) -> Option<&Descriptor> {
        self.named.as_ref().map(|(descriptor, _)| descriptor)
    }

    pub(crate) fn no_image(&self, reason: &'static str) -> Error {
        Error::NotAnArchive { source_name: self.name.clone(), reason }
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).is_ok()
    }

    /// The bytes of a file.
    pub(crate) fn file(&self, name: &str) -> Result<Range> {
        let missing = || Error::Missing { source_name: self.name.clone(), name: name.to_owned() };
        match &self.files {
            Files::Registry(_) => Err(missing()),
            Files::Archive { file, extents } => {
                let path = name.strip_prefix("./").unwrap_or(name);
                let (offset, length) = *extents.get(path.as_bytes()).ok_or_else(missing)?;
                Ok(Range { file: Arc::clone(file), offset, length })
            }
            Files::Directory(dir) | Files::Hex(dir) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let file = kernel::fs::open_inside(dir.as_fd(), Path::new(name), flags).map_err(|errno| {
                    if errno == Errno::NOENT {
                        missing()
                    } else {
                        system("open", format!("{}/{name}", self.name))(errno)
                    }
                })?;
                let stat = rustix::fs::fstat(&file).map_err(system("stat", name))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(missing());
                }
                Ok(Range { file: Arc::new(file), offset: 0, length: stat.st_size as u64 })
            }
        }
    }

    /// The bytes of a layer. Those of files have the length that is expected.
    pub(crate) fn layer(&self, descriptor: &Descriptor) -> Result<Bytes> {
        Ok(match self.payload(descriptor)? {
            Payload::Remote(repository) => Bytes::Remote(repository),
            Payload::File(range) => Bytes::Local(range),
            Payload::Bytes(_) | Payload::Elsewhere(_) => {
                unreachable!("only what is copied out of the store is elsewhere or in memory")
            }
        })
    }

    /// Where the bytes of a blob are, which have the length that is expected where they are in a file.
    pub(crate) fn payload(&self, descriptor: &Descriptor) -> Result<Payload> {
        if let Files::Registry(repository) = &self.files {
            return Ok(Payload::Remote(Arc::clone(repository)));
        }
        let range = match (self.blob(descriptor.digest), &self.elsewhere) {
            (Err(Error::Missing { .. }), Some(elsewhere)) => {
                return Ok(Payload::Elsewhere(Arc::clone(elsewhere)));
            }
            (found, _) => found?,
        };
        if range.length != descriptor.size {
            let blob = format!("layer {}", descriptor.digest);
            return Err(Error::SizeMismatch { blob, expected: descriptor.size, found: range.length });
        }
        Ok(Payload::File(range))
    }

    /// The bytes of the blob with this digest.
    fn blob(&self, digest: Digest) -> Result<Range> {
        let hex = digest.hex();
        let found = match &self.files {
            Files::Hex(_) => {
                self.file(&hex).or_else(|error| self.file(&format!("{hex}.manifest.json")).map_err(|_| error))
            }
            _ => self.file(&format!("blobs/sha256/{hex}")),
        };
        found.map_err(|error| match error {
            Error::Missing { source_name, .. } => {
                Error::Missing { source_name, name: format!("blob {digest}") }
            }
            other => other,
        })
    }

    /// A whole small file.
    pub(crate) fn document(&self, name: &str) -> Result<Vec<u8>> {
        read_document(self.file(name)?, name)
    }

    /// A whole small blob, with its digest and length checked.
    pub(crate) fn document_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let Descriptor { digest, size, .. } = *descriptor;
        let name = format!("blob {digest}");
        let too_long = || Error::DocumentTooLong { name: name.clone(), size, limit: DOCUMENT_MAX };
        let named = self.named.as_ref().filter(|(named, _)| named.digest == digest);
        let bytes = match (&self.files, named) {
            (_, Some((_, bytes))) => bytes.clone(),
            (Files::Registry(_), None) if size > DOCUMENT_MAX => return Err(too_long()),
            (Files::Registry(repository), None) if descriptor.is_manifest() => {
                repository.manifest(&digest.to_string())?.1
            }
            (Files::Registry(repository), None) => repository.document(descriptor)?,
            _ => read_document(self.blob(digest)?, &name)?,
        };
        if bytes.len() as u64 != size {
            return Err(Error::SizeMismatch { blob: name, expected: size, found: bytes.len() as u64 });
        }
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(Error::DigestMismatch { blob: name, expected: digest, found });
        }
        Ok(bytes)
    }
}

fn read_document(mut range: Range, name: &str) -> Result<Vec<u8>> {
    if range.length > DOCUMENT_MAX {
        return Err(Error::DocumentTooLong {
            name: name.to_owned(),
            size: range.length,
            limit: DOCUMENT_MAX,
        });
    }
    let expected = range.length;
    let mut bytes = Vec::with_capacity(expected as usize);
    range.read_to_end(&mut bytes)?;
    if bytes.len() as u64 != expected {
        return Err(Error::SizeMismatch { blob: name.to_owned(), expected, found: bytes.len() as u64 });
    }
    Ok(bytes)
}

fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

enum Opened {
    Directory(OwnedFd),
    File(OwnedFd),
}

fn open_source(path: &Path) -> Result<Opened> {
    let file = if path == Path::new("-") {
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(system("dup", "standard input"))?
    } else {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
            .map_err(system("open", path))?
    };
    let stat = rustix::fs::fstat(&file).map_err(system("stat", path))?;
    let refused = |reason| Error::NotAnArchive { source_name: shown(path), reason };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(Opened::Directory(file)),
        FileType::CharacterDevice if rustix::termios::isatty(&file) => {
            Err(refused("it is a terminal; give a file, or pipe an archive into it"))
        }
        FileType::CharacterDevice | FileType::BlockDevice => Err(refused("it is a device")),
        _ => Ok(Opened::File(file)),
    }
}

/// A plain archive in a file that can be read anywhere: the file itself where it is that already.
fn seekable(file: OwnedFd, name: &str, spool: &Path, limits: Limits) -> Result<OwnedFd> {
    let stat = rustix::fs::fstat(&file).map_err(system("stat", name))?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let mut first = [0; 6];
    if is_regular {
        let count = rustix::io::pread(&file, &mut first, 0).map_err(system("read", name))?;
        if compression(&first[..count], name)? == Compression::None {
            return Ok(file);
        }
    }
    let file = if is_regular { file } else { copy(Pipe(file), spool, limits, name)? };
    let count = rustix::io::pread(&file, &mut first, 0).map_err(system("read", name))?;
    let plain = spool.with_extension("plain");
    let compression = compression(&first[..count], name)?;
    let length = rustix::fs::fstat(&file).map_err(system("stat", name))?.st_size as u64;
    let range = Range { file: Arc::new(file), offset: 0, length };
    match compression {
        Compression::None => Arc::into_inner(range.file).ok_or_else(|| system("share", name)(Errno::INVAL)),
        Compression::Gzip => {
            let input = BufReader::with_capacity(128 << 10, range);
            copy(flate2::bufread::MultiGzDecoder::new(input), &plain, limits, name)
        }
        Compression::Zstd => copy(zstd::stream::read::Decoder::new(range)?, &plain, limits, name),
    }
}

fn compression(first: &[u8], name: &str) -> Result<Compression> {
    Compression::of(first).map_err(|reason| Error::NotAnArchive { source_name: name.to_owned(), reason })
}

fn copy(mut from: impl Read, to: &Path, limits: Limits, name: &str) -> Result<OwnedFd> {
    let budget = Budget::new(limits);
    let mut target =
        fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(to)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error().is_some() => return Err(Error::File(error)),
            Err(error) => {
                return Err(Error::BadCompression { blob: name.to_owned(), reason: error.to_string() });
            }
        };
        budget.take_bytes(count as u64).map_err(|exceeded| Error::TooLarge {
            blob: name.to_owned(),
            what: exceeded.what,
            limit: exceeded.limit,
        })?;
        target.write_all(&buffer[..count])?;
    }
    Ok(OwnedFd::from(target.into_parts().0))
}

/// Finds where each file's bytes are in a plain archive, without reading them. Links of old docker archives
/// (`ID/layer.tar` → `../OTHER/layer.tar`) get their target's bytes.
fn index(file: &Arc<OwnedFd>, name: &str) -> Result<HashMap<Vec<u8>, (u64, u64)>> {
    let bad = |source| Error::BadArchive { source_name: name.to_owned(), source };
    let length = rustix::fs::fstat(file).map_err(system("stat", name))?.st_size as u64;
    let whole = Range { file: Arc::clone(file), offset: 0, length };
    let mut reader = tar::Reader::new(BufReader::with_capacity(16 << 10, whole));
    let mut extents = HashMap::new();
    let mut links: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    while let Some((entry, offset)) = reader.next_seeking().map_err(bad)? {
        let path = cleaned(&entry.path);
        match entry.kind {
            Kind::File if entry.segments.is_some() => {
                return Err(Error::NotAnArchive {
                    source_name: name.to_owned(),
                    reason: "it has sparse files",
                });
            }
            Kind::File => {
                if offset.checked_add(entry.size).is_none_or(|end| end > length) {
                    return Err(bad(tar::Error { at: offset, fault: tar::Fault::Truncated }));
                }
                // Two files of one name: which of them is meant differs from reader to reader.
                if extents.insert(path, (offset, entry.size)).is_some() {
                    return Err(Error::NotAnArchive {
                        source_name: name.to_owned(),
                        reason: "it has two files of one name",
                    });
                }
            }
            Kind::HardLink(target) => {
                links.insert(path, cleaned(&target));
            }
            Kind::Symlink(target) => {
                let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &path[..=at]);
                let target = cleaned(&[parent, &target].concat());
                links.insert(path, target);
            }
            _ => {}
        }
    }
    for (link, target) in &links {
        // At most a link to a link, as docker wrote them.
        let target = links.get(target).unwrap_or(target);
        if let Some(extent) = extents.get(target).copied() {
            extents.entry(link.clone()).or_insert(extent);
        }
    }
    Ok(extents)
}

/// The name without `.` and `..`, which can only name something in the archive itself.
fn cleaned(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Opens a file for reading from its beginning, for `import`.
pub(crate) fn open_reader(path: &Path) -> Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
            .map_err(system("dup", "standard input"))?;
        return Ok(Box::new(Pipe(stdin)));
    }
    Ok(Box::new(File::open(path)?))
}

/// The bytes of a file of the store's own.
pub(crate) fn local(path: &Path) -> Result<Bytes> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(Bytes::Local(Range { file: Arc::new(OwnedFd::from(file.into_parts().0)), offset: 0, length }))
}
