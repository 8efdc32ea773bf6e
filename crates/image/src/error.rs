//! What can go wrong with images, and what to do about it.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::oci::Platform;
use crate::reference::Reference;
use crate::registry::Fault;
use crate::tar;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation on images that failed. The text says what failed, on what and why; [`Error::advice`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error(transparent)]
    System(#[from] kernel::Error),
    /// A file of the store or of the source could not be used; the error names it.
    #[error(transparent)]
    File(#[from] io::Error),
    /// Not a digest.
    #[error("{text:?} is not a digest (sha256: and 64 hexadecimal digits)")]
    BadDigest {
        /// What was given.
        text: String,
    },
    /// Not a name of an image.
    #[error("{text:?} is not a name of an image: {reason}")]
    BadReference {
        /// What was given.
        text: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// Not a platform.
    #[error("{text:?} is not a platform (linux/amd64, linux/arm64/v8, …)")]
    BadPlatform {
        /// What was given.
        text: String,
    },
    /// Not an instruction that `import --change` takes.
    #[error("{text:?} is not a change of a configuration: {reason}")]
    BadChange {
        /// What was given.
        text: String,
        /// Why not.
        reason: &'static str,
    },
    /// A document of an image is no valid JSON or lacks a field.
    #[error("{document} is malformed: {source}")]
    BadJson {
        /// Which document.
        document: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A manifest or index is not one.
    #[error("manifest {digest} is malformed: {reason}")]
    BadManifest {
        /// Its digest.
        digest: Digest,
        /// Why.
        reason: &'static str,
    },
    /// A configuration contradicts its manifest.
    #[error("configuration {digest} is malformed: {reason}")]
    BadConfig {
        /// Its digest, which is the image's id.
        digest: Digest,
        /// Why.
        reason: &'static str,
    },
    /// The source is nothing that images are loaded from.
    #[error("{source_name} holds no image: {reason}")]
    NotAnArchive {
        /// The source as the user named it.
        source_name: String,
        /// What was found instead.
        reason: &'static str,
    },
    /// The outer archive is damaged.
    #[error("{source_name} is damaged: {source}")]
    BadArchive {
        /// The source as the user named it.
        source_name: String,
        /// What is wrong with it.
        source: tar::Error,
    },
    /// A tag was asked for that the source does not have.
    #[error("{source_name} has no image tagged {tag:?}; it has: {}", list(.available))]
    TagMissing {
        /// The source as the user named it.
        source_name: String,
        /// The tag asked for.
        tag: String,
        /// The tags it has.
        available: Vec<String>,
    },
    /// A file that the source's documents name is not in it.
    #[error("{source_name} lacks {name}")]
    Missing {
        /// The source as the user named it.
        source_name: String,
        /// The missing file, or `blob sha256:…`.
        name: String,
    },
    /// A document is longer than any real one.
    #[error("{name} is {size} bytes long; the most that is read is {limit}")]
    DocumentTooLong {
        /// Which one.
        name: String,
        /// Its length in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A blob is not what its digest says.
    #[error("{blob} has digest {found}, not {expected}")]
    DigestMismatch {
        /// Which blob.
        blob: String,
        /// What the document says.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// A blob has another length than its descriptor says.
    #[error("{blob} has {found} bytes, not {expected}")]
    SizeMismatch {
        /// Which blob.
        blob: String,
        /// What the document says.
        expected: u64,
        /// What was read.
        found: u64,
    },
    /// A layer or a whole archive cannot be decompressed.
    #[error("{blob} cannot be decompressed: {reason}")]
    BadCompression {
        /// Which one.
        blob: String,
        /// Why.
        reason: String,
    },
    /// A layer's archive is damaged.
    #[error("layer {layer}: {source}")]
    BadLayer {
        /// The layer's diff id.
        layer: String,
        /// What is wrong with it.
        source: tar::Error,
    },
    /// An entry of a layer is refused.
    #[error("layer {layer}: {path}: {reason}")]
    Refused {
        /// The layer's diff id.
        layer: String,
        /// The entry's name.
        path: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// An entry of a layer could not be made.
    #[error("layer {layer}: {}", kernel::Error::new(.call, .path.as_str(), *.errno))]
    Entry {
        /// The layer's diff id.
        layer: String,
        /// What failed.
        call: &'static str,
        /// The entry's name.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// A layer or a whole archive is larger than what was allowed.
    #[error("{blob} exceeds the limit of {limit} {what}")]
    TooLarge {
        /// Which one.
        blob: String,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// No such image.
    #[error("no image named {name:?}{}", there_is(.nearest))]
    UnknownImage {
        /// What was asked for.
        name: String,
        /// Names of images that are like it, the best first.
        nearest: Vec<String>,
    },
    /// More than one image's id begins so.
    #[error("{prefix:?} is the beginning of {count} images' ids")]
    AmbiguousId {
        /// What was asked for.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// The image exists, but not for the platform.
    #[error("{name} is not here for {wanted}, only for: {}", list(.available))]
    PlatformMissing {
        /// The image.
        name: String,
        /// The platform asked for.
        wanted: Platform,
        /// The platforms it is here for.
        available: Vec<String>,
    },
    /// The source has images, but none for the platform.
    #[error("{source_name} has no image for {wanted}, only for: {}", list(.available))]
    PlatformNotInSource {
        /// The source as the user named it.
        source_name: String,
        /// The platform asked for.
        wanted: String,
        /// The platforms it has images for.
        available: Vec<String>,
    },
    /// The built-in image is of this machine's platform only.
    #[error("the built-in image host is this machine, which is {host}, not {wanted}")]
    PlatformOfHost {
        /// The platform asked for.
        wanted: String,
        /// This machine's.
        host: String,
    },
    /// A digest was given that an image of another name has.
    #[error("no image named {name:?}; that digest is of {owner}")]
    DigestOfAnother {
        /// What was asked for.
        name: String,
        /// The name of the image that has the digest, or its id.
        owner: String,
    },
    /// A container uses the image.
    #[error("image {name} is used by a container, or mounted")]
    InUse {
        /// The image as asked for.
        name: String,
    },
    /// An id was given and the image has several names.
    #[error("image {id} has several names: {}", list(.names))]
    SeveralNames {
        /// The image's id.
        id: String,
        /// Its names.
        names: Vec<String>,
    },
    /// The image is no file that could be removed or named anew.
    #[error("image {name} is built in: it is composed of this machine's own files when it is run")]
    BuiltIn {
        /// The image as asked for.
        name: String,
    },
    /// A registry did not do what was asked.
    #[error("{registry} {fault}")]
    Registry {
        /// Its host.
        registry: String,
        /// Why.
        fault: Fault,
    },
    /// One image can be copied at a time.
    #[error("{source_name} has {count} images, and one is copied at a time")]
    SeveralImages {
        /// The source as the user named it.
        source_name: String,
        /// How many.
        count: usize,
    },
    /// A manifest cannot be in the form that is wanted.
    #[error("manifest {digest} cannot have that form: {reason}")]
    NoSuchForm {
        /// Its digest.
        digest: Digest,
        /// Why not.
        reason: &'static str,
    },
    /// Nothing can be copied to there.
    #[error("{} cannot take an image: {reason}", .path.display())]
    NotADestination {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A file of a container belongs to somebody who is nobody in there.
    #[error("{} belongs to {uid}:{gid}, which has no number in the container", .path.display())]
    NoOwner {
        /// The file.
        path: PathBuf,
        /// Its owner here.
        uid: u32,
        /// Its group here.
        gid: u32,
    },
    /// The image cannot be written in docker's form.
    #[error("the image cannot be written in docker's form: {reason}")]
    NoDockerForm {
        /// Why not.
        reason: &'static str,
    },
    /// A part of the store could not be made anew.
    #[error("{reason}")]
    NotRepaired {
        /// Why not.
        reason: String,
    },
    /// A file with logins is malformed.
    #[error("{} is no file of logins: {reason}", .path.display())]
    BadAuthFile {
        /// The file.
        path: PathBuf,
        /// In what.
        reason: String,
    },
    /// The program that keeps logins failed.
    #[error("{program} failed: {reason}")]
    CredentialHelper {
        /// Its name.
        program: String,
        /// What it said.
        reason: String,
    },
    /// There is no directory for this user's logins.
    #[error("this user has no home directory to keep logins in")]
    NoHome,
    /// A file of the store was written by a newer coracle or is damaged.
    #[error("{} is not a file that this coracle can read: {reason}", .path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whether a file system, or what this user may take of it, is full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Error::System(error) => is_full(error.errno()),
            Error::Entry { errno, .. } => is_full(*errno),
            Error::File(error) => is_full_file(error),
            _ => false,
        }
    }

    /// Whether a registry could be asked for what is not here: what was given is a name, and not one of a file or of another kind of
    /// source.
    pub fn is_missing_name(&self) -> bool {
        matches!(self, Error::UnknownImage { name, .. } if not_a_name(name).is_none() && name.parse::<Reference>().is_ok())
    }

    /// Whether what was read is not what it should be, so that reading it elsewhere may help.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Error::DigestMismatch { .. }
                | Error::SizeMismatch { .. }
                | Error::BadCompression { .. }
                | Error::BadLayer { .. }
        )
    }

    /// What to do about it, where there is something: one sentence.
    pub fn advice(&self) -> Option<String> {
        let text = match self {
            Error::System(error) if error.errno() == Errno::ROFS => WRITABLE.to_owned(),
            Error::Entry { errno: Errno::ROFS, .. } => WRITABLE.to_owned(),
            Error::File(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => WRITABLE.to_owned(),
            Error::System(error) if is_full(error.errno()) => {
                format!("free space on the file system of {}, then try again; nothing was left behind", error.object())
            }
            Error::Entry { errno, .. } if is_full(*errno) => {
                "free space on the store's file system, then try again; nothing was left behind".to_owned()
            }
            Error::File(error) if is_full_file(error) => {
                "free space on that file system, then try again; nothing was left behind".to_owned()
            }
            Error::Entry { call: "chown", errno: Errno::INVAL, .. } => {
                "give this user more subordinate ids in /etc/subuid and /etc/subgid".to_owned()
            }
            Error::Entry { call: "setxattr", errno: Errno::OPNOTSUPP, .. } => {
                "keep the store on a file system with extended attributes (ext4, xfs, btrfs)".to_owned()
            }
            Error::DigestMismatch { .. }
            | Error::SizeMismatch { .. }
            | Error::BadArchive { .. }
            | Error::BadLayer { .. }
            | Error::BadCompression { .. }
            | Error::Missing { .. } => "fetch or write the archive again: it is incomplete or damaged".to_owned(),
            Error::NotAnArchive { .. } => {
                "give a file made by `docker save`, `podman save` or `skopeo copy`, or use `import` for a root file system"
                    .to_owned()
            }
            Error::BadJson { .. }
            | Error::BadManifest { .. }
            | Error::BadConfig { .. }
            | Error::DocumentTooLong { .. }
            | Error::Refused { .. } => {
                "have the image written anew by `docker save`, `podman save` or `skopeo copy`, or do without it".to_owned()
            }
            Error::TagMissing { available, .. } => match &available[..] {
                [] => "leave the tag out".to_owned(),
                [first, ..] => format!("give one of those, for example {first}, or leave the tag out for all"),
            },
            Error::BadDigest { .. } => {
                "give a whole digest as `coracle images --digests` shows it, or a name or id".to_owned()
            }
            Error::BadPlatform { .. } => "write os/architecture, for example linux/arm64".to_owned(),
            Error::BadChange { .. } => {
                "write instructions as in a Dockerfile: -c 'CMD [\"/bin/sh\"]' -c 'ENV A=1'".to_owned()
            }
            Error::BadReference { text, .. } => match not_a_name(text) {
                Some(advice) => advice,
                None => "a name is like app, user/app:1.0, host.example:5000/app:1.0 or app@sha256:DIGEST".to_owned(),
            },
            Error::DigestOfAnother { owner, .. } => format!("use its own name: {owner}"),
            Error::TooLarge { .. } => "if you trust the image, raise the limit: --max-size, --max-entries".to_owned(),
            Error::UnknownImage { name, nearest } if nearest.is_empty() => not_a_name(name).unwrap_or_else(|| {
                "`coracle images` lists the images that are here; `coracle pull` and `coracle load` add one".to_owned()
            }),
            Error::UnknownImage { nearest, .. } => format!("did you mean {}?", nearest[0]),
            Error::AmbiguousId { .. } => "give more digits of the id".to_owned(),
            Error::PlatformMissing { wanted, .. } => {
                format!("leave --platform out, or load the image for it too: coracle load --platform {wanted}")
            }
            Error::PlatformNotInSource { available, .. } => match &available[..] {
                [] => "leave --platform out".to_owned(),
                [first, ..] => format!("choose one that it has, for example --platform {first}"),
            },
            Error::PlatformOfHost { .. } => {
                "leave --platform out, or load an image for that platform".to_owned()
            }
            Error::InUse { .. } => "remove the container first, or unmount it: coracle image unmount".to_owned(),
            Error::BuiltIn { .. } => "nothing needs to be done: it takes no room worth freeing".to_owned(),
            Error::SeveralNames { .. } => "remove them one by one, or all with --force".to_owned(),
            Error::BadRecord { .. } => "remove the image and load it again".to_owned(),
            Error::Registry { registry, fault } => fault.advice(registry),
            Error::SeveralImages { .. } => "name one by its tag: oci:DIR:TAG, docker-archive:FILE:NAME:TAG".to_owned(),
            Error::NoSuchForm { .. } => "use OCI's form: --format oci, oci-archive: or oci:".to_owned(),
            Error::NotADestination { .. } => "name another one, or one that does not exist yet".to_owned(),
            Error::BadAuthFile { .. } => "mend the file, or remove it and log in again".to_owned(),
            Error::CredentialHelper { program, .. } => {
                format!("see that {program} works, or take it out of credsStore and credHelpers in auth.json or config.json")
            }
            Error::NoOwner { .. } => {
                "give the file an owner out of the container's range of ids (see /etc/subuid), from inside the container".to_owned()
            }
            Error::NoDockerForm { .. } => "write it in OCI's: --format oci".to_owned(),
            Error::NoHome => "set HOME, or name a file: --authfile".to_owned(),
            _ => return None,
        };
        Some(text)
    }
}

/// What to do where the store is on a file system that is read only.
const WRITABLE: &str = "keep images and containers where they can be written: --root DIR";

/// What to do with a text that was given for an image's name and is something else.
fn not_a_name(text: &str) -> Option<String> {
    // What is longer is no name of a file either.
    if text.len() > 4096 {
        return None;
    }
    let is_archive = [".tar", ".tar.gz", ".tgz", ".tar.zst"].iter().any(|end| text.ends_with(end));
    let advice = if let Some(name) = text.strip_prefix("docker://") {
        format!("write the name alone: {name}")
    } else if ["oci:", "oci-archive:", "docker-archive:"].iter().any(|kind| text.starts_with(kind)) {
        format!("load it first, then use the name that is printed: coracle pull {text}")
    } else if ["/", "./", "../"].iter().any(|begin| text.starts_with(begin)) || is_archive {
        format!("load a file first, then use the name that is printed: coracle load -i {text}")
    } else if let Some(name) = text.strip_suffix(':').filter(|name| name.parse::<Reference>().is_ok()) {
        format!("write a tag behind the colon, or leave it out: {name}")
    } else if text.to_lowercase() != text && text.to_lowercase().parse::<Reference>().is_ok() {
        format!("write it in lower case: {}", text.to_lowercase())
    } else {
        return None;
    };
    Some(advice)
}

fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT)
}

fn is_full_file(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn there_is(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; there is {}", names.join(", ")) }
}

/// Makes the error of a system call on `object`.
pub(crate) fn system(call: &'static str, object: impl AsRef<std::path::Path>) -> impl FnOnce(Errno) -> Error {
    let object = object.as_ref().display().to_string();
    move |errno| Error::System(kernel::Error::new(call, object, errno))
}
