//! What a copy carries: blobs and the documents that name them, before they are sent anywhere.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Document, ManifestOrIndex};
use crate::progress::{Progress, Stage};
use crate::reference::Reference;
use crate::registry::{Access, Repository, Stream};
use crate::source::Origin;
use crate::stream::Range;

/// Indexes in indexes.
const DEPTH_MAX: usize = 8;

/// Everything of one copy.
#[derive(Default)]
pub(crate) struct Freight {
    /// Each once.
    pub(crate) blobs: Vec<Blob>,
    /// Manifests and indexes, what is named before what names it.
    pub(crate) documents: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) roots: Vec<Root>,
}

/// An image, index or artifact that is copied as such.
pub(crate) struct Root {
    pub(crate) descriptor: Descriptor,
    /// What it is called, as far as the source says.
    pub(crate) names: Vec<Reference>,
}

/// A blob and where its bytes are.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) descriptor: Descriptor,
    pub(crate) payload: Payload,
    /// What it was before it was compressed.
    pub(crate) origin: Digest,
}

impl Blob {
    fn new(descriptor: Descriptor, payload: Payload) -> Self {
        Self { origin: descriptor.digest, descriptor, payload }
    }
}

#[derive(Clone)]
pub(crate) enum Payload {
    File(Range),
    Bytes(Arc<Vec<u8>>),
    Remote(Arc<Repository>),
    /// Not here, though the image is: it is fetched from where the image came from, if it is needed.
    Elsewhere(Arc<Elsewhere>),
}

/// The registry that has what the store has only unpacked. It is asked when the first blob is wanted.
pub(crate) struct Elsewhere {
    name: Reference,
    access: Access,
    repository: Mutex<Option<Arc<Repository>>>,
}

impl Elsewhere {
    pub(crate) fn new(name: Reference, access: Access) -> Self {
        Self { name, access, repository: Mutex::new(None) }
    }

    fn repository(&self) -> Result<Arc<Repository>> {
        let mut known = self.repository.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(repository) => Ok(Arc::clone(repository)),
            None => Ok(Arc::clone(known.insert(Repository::open(&self.name, &self.access)?))),
        }
    }
}

impl Freight {
    /// Adds a document of `origin` with all that it names.
    pub(crate) fn add(&mut self, origin: &Origin, descriptor: &Descriptor, depth: usize) -> Result<()> {
        if self.documents.iter().any(|(known, _)| known.digest == descriptor.digest) {
            return Ok(());
        }
        let bytes = origin.document_blob(descriptor)?;
        self.add_document(origin, descriptor, bytes, depth)
    }

    /// Adds a document that is at hand, with all that it names.
    pub(crate) fn add_document(
        &mut self,
        origin: &Origin,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
        depth: usize,
    ) -> Result<()> {
        let digest = descriptor.digest;
        if depth > DEPTH_MAX {
            return Err(Error::BadManifest { digest, reason: "it is nested too deeply" });
        }
        match read_manifest(digest, &bytes)? {
            Document::Manifest { config, layers } => {
                for blob in std::iter::once(&config).chain(&layers) {
                    self.add_blob(origin, blob)?;
                }
            }
            Document::Index(entries) => {
                for entry in &entries {
                    self.add(origin, entry, depth + 1)?;
                }
            }
        }
        // What comes from a registry or in an index is called by a kind; elsewhere the document says it itself.
        let mut descriptor = descriptor.clone();
        if descriptor.media_type.is_empty() {
            descriptor.media_type = media_type(&bytes);
        }
        self.documents.push((descriptor, bytes));
        Ok(())
    }

    fn add_blob(&mut self, origin: &Origin, descriptor: &Descriptor) -> Result<()> {
        if self.blobs.iter().any(|known| known.descriptor.digest == descriptor.digest) {
            return Ok(());
        }
        match origin.payload(descriptor) {
            // Windows' layers are fetched from where their makers keep them.
            Ok(Payload::Remote(_) | Payload::Elsewhere(_)) if is_foreign(descriptor) => {}
            Ok(payload) => self.blobs.push(Blob::new(descriptor.clone(), payload)),
            Err(Error::Missing { .. }) if is_foreign(descriptor) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Adds a manifest whose blobs are at hand.
    pub(crate) fn add_image(
        &mut self,
        descriptor: Descriptor,
        bytes: Vec<u8>,
        payloads: &BTreeMap<Digest, Payload>,
    ) -> Result<()> {
        if let Document::Manifest { config, layers } = read_manifest(descriptor.digest, &bytes)? {
            for blob in std::iter::once(config).chain(layers) {
                let is_known = self.blobs.iter().any(|known| known.descriptor.digest == blob.digest);
                if let (Some(payload), false) = (payloads.get(&blob.digest), is_known) {
                    self.blobs.push(Blob::new(blob, payload.clone()));
                }
            }
        }
        self.documents.push((descriptor, bytes));
        Ok(())
    }

    /// The document with this digest.
    pub(crate) fn document(&self, digest: Digest) -> Option<&[u8]> {
        self.documents.iter().find(|(known, _)| known.digest == digest).map(|(_, bytes)| bytes.as_slice())
    }
}

pub(crate) fn read_manifest(digest: Digest, bytes: &[u8]) -> Result<Document> {
    let bad = |source| Error::BadJson { document: format!("manifest {digest}"), source };
    // A list would do for a structure's fields, but nothing can be changed in it by a field's name.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(bad)?;
    let is_object = |value: &serde_json::Value| value.is_null() || value.is_object();
    let lists = ["layers", "manifests"].into_iter().filter_map(|list| value.get(list)?.as_array());
    if !value.is_object() || !value.get("config").is_none_or(is_object) || !lists.flatten().all(is_object) {
        return Err(Error::BadManifest { digest, reason: "a part of it is no object" });
    }
    serde_json::from_slice::<ManifestOrIndex>(bytes).map_err(bad)?.document(digest)
}

/// The kind that a document says it is of, or that its fields mean.
pub(crate) fn media_type(bytes: &[u8]) -> String {
    use crate::oci::media;
    match serde_json::from_slice::<ManifestOrIndex>(bytes) {
        Ok(document) if !document.media_type.is_empty() => document.media_type,
        Ok(document) if document.manifests.is_some() => media::INDEX.to_owned(),
        _ => media::MANIFEST.to_owned(),
    }
}

/// Whether a layer may not be given on.
fn is_foreign(descriptor: &Descriptor) -> bool {
    ["foreign", "nondistributable"].iter().any(|word| descriptor.media_type.contains(word))
}

/// A blob on its way: read in one go or in several, checked as it goes, and counted for who watches.
pub(crate) struct Passage<'a> {
    blob: &'a Blob,
    progress: (&'a Progress, usize),
    state: Mutex<State>,
}

struct State {
    hash: Sha256,
    hashed: u64,
    failure: Option<Error>,
}

impl<'a> Passage<'a> {
    /// The blob that is the `at`th of the progress.
    pub(crate) fn new(blob: &'a Blob, progress: &'a Progress, at: usize) -> Self {
        let state = Mutex::new(State { hash: Sha256::new(), hashed: 0, failure: None });
        Self { blob, progress: (progress, at), state }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.blob.descriptor.digest
    }

    pub(crate) fn size(&self) -> u64 {
        self.blob.descriptor.size
    }

    /// Says that it goes on at `offset`.
    pub(crate) fn begin(&self, offset: u64) {
        self.progress.0.go_on(self.progress.1, offset);
    }

    /// The bytes from `begin` to `end`. What was read before is not checked a second time.
    pub(crate) fn reader(&self, begin: u64, end: u64) -> io::Result<Box<dyn Read + Send + '_>> {
        let bytes: Box<dyn Read + Send> = match &self.blob.payload {
            Payload::File(range) => {
                let mut range = range.clone();
                range.seek(SeekFrom::Current(begin as i64))?;
                Box::new(range)
            }
            Payload::Bytes(bytes) => {
                let mut cursor = io::Cursor::new(bytes.as_ref().clone());
                cursor.set_position(begin);
                Box::new(cursor)
            }
            Payload::Remote(repository) => Box::new(Stream::new(repository, &self.blob.descriptor, begin)),
            Payload::Elsewhere(elsewhere) => {
                let repository = elsewhere.repository().map_err(|error| {
                    self.state().failure = Some(error);
                    io::Error::from(io::ErrorKind::NotConnected)
                })?;
                Box::new(Stream::new(&repository, &self.blob.descriptor, begin))
            }
        };
        let bytes = self.progress.0.counted(self.progress.1, bytes);
        Ok(Box::new(Checked { passage: self, bytes: bytes.take(end - begin), at: begin, end }))
    }

    /// Whether all bytes have been read and are those of the digest.
    pub(crate) fn finish(&self) -> Result<()> {
        let state = self.state();
        let found = Digest::finish(state.hash.clone());
        let blob = || format!("blob {}", self.digest());
        if state.hashed != self.size() {
            return Err(Error::SizeMismatch { blob: blob(), expected: self.size(), found: state.hashed });
        }
        if found != self.digest() {
            return Err(Error::DigestMismatch { blob: blob(), expected: self.digest(), found });
        }
        Ok(())
    }

    /// Why the bytes cannot be read, if they cannot.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.state().failure.take()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.progress.0.enter(self.progress.1, stage);
    }
}

struct Checked<'a> {
    passage: &'a Passage<'a>,
    bytes: io::Take<Box<dyn Read + Send>>,
    at: u64,
    end: u64,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer);
        let mut state = self.passage.state();
        let count = match read {
            Ok(0) if self.at < self.end && !buffer.is_empty() => {
                let (blob, expected) = (format!("blob {}", self.passage.digest()), self.passage.size());
                state.failure = Some(Error::SizeMismatch { blob, expected, found: self.at });
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                state.failure = Some(match error.downcast::<Error>() {
                    Ok(error) => error,
                    Err(error) => Error::File(error),
                });
                return Err(io::Error::other("the bytes to send cannot be read"));
            }
        };
        let after = self.at + count as u64;
        if self.at <= state.hashed && after > state.hashed {
            let known = (state.hashed - self.at) as usize;
            state.hash.update(&buffer[known..count]);
            state.hashed = after;
        }
        self.at = after;
        Ok(count)
    }
}
