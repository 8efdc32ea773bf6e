//! Images and artifacts from one place to another, as they are: what is copied is not unpacked, and verified on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::destination::{Archive, Destination, Hex, Layout, Remote};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::freight::{Elsewhere, Freight, Passage, Payload, Root, read_manifest};
use crate::load::{LoadOptions, manifest_json};
use crate::oci::{Descriptor, Document, Platform, media};
use crate::plan::{choose, full_name_of, layout_entries, plans};
use crate::progress::{Progress, Stage};
use crate::recipe::Recipe;
use crate::reference::Reference;
use crate::registry::{Access, Repository, Sent};
use crate::source::{self, Bytes, Origin, Source};
use crate::staging::Staging;
use crate::store::Store;
use crate::stream::{Budget, Limits, Plain, Stored};
use crate::unpack;

/// As many blobs are sent at once to a registry.
const CONNECTIONS: usize = 6;
/// A token for more repositories than these would be for more than a registry's token server likes to be asked for.
const MOUNTED_MAX: usize = 8;

/// Where an image is, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `coracle:NAME`: in the store.
    Store(String),
    /// Everything else.
    Outside(Source),
}

impl FromStr for Location {
    type Err = Error;

    /// A name alone is an image of the store.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(name) = text.strip_prefix("coracle:") {
            return Ok(Self::Store(name.to_owned()));
        }
        Ok(match text.parse()? {
            Source::Any(_) => Self::Store(text.to_owned()),
            source => Self::Outside(source),
        })
    }
}

/// Which images of an index are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one for a platform; None: from the store, the whole index where all of it is there, else the image for this machine.
    One(Option<Platform>),
    /// All; from the store, all that are there.
    All,
}

/// How something is copied.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// How the source's registry is talked to.
    pub from: Access,
    /// How the destination's is.
    pub to: Access,
    /// Which images.
    pub which: Which,
    /// What is made anew.
    pub recipe: Recipe,
    /// Where to say how far it is.
    pub progress: Arc<Progress>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            from: Access::default(),
            to: Access::default(),
            which: Which::One(None),
            recipe: Recipe::VERBATIM,
            progress: Arc::default(),
        }
    }
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The digest of the manifest or index at its destination.
    pub digest: Digest,
    /// How many bytes that is.
    pub size: u64,
}

impl Store {
    /// Copies an image, index or artifact. What the destination has is not sent again, and what comes of a copy that fails is taken
    /// away again.
    pub fn copy(&self, from: &Location, to: &Location, options: &CopyOptions) -> Result<Copied> {
        let to = match (from, to) {
            (Location::Outside(source), Location::Store(name)) => return self.take_in(source, name, options),
            (Location::Store(source), Location::Store(name)) => {
                self.tag(source, &name.parse()?)?;
                let meaning = self.meaning(source, None)?;
                return Ok(Copied { digest: meaning.target.digest, size: meaning.target.size });
            }
            (_, Location::Outside(to)) => to,
        };
        self.staged(|staging| {
            let mut freight = self.gather(from, options, staging)?;
            if freight.roots.len() > 1 {
                return Err(Error::SeveralImages { source_name: shown(from), count: freight.roots.len() });
            }
            let destination = self.destination(from, to, &mut freight, options, staging)?;
            send(&freight, destination, options)?;
            let root = freight.roots.first().map(|root| &root.descriptor);
            let root = root.ok_or(Error::NotAnArchive { source_name: shown(from), reason: "it is empty" })?;
            Ok(Copied { digest: root.digest, size: root.size })
        })
    }

    /// Writes images of the store into one archive or directory.
    pub fn save(&self, names: &[String], to: &Source, options: &CopyOptions) -> Result<()> {
        self.staged(|staging| {
            let mut freight = Freight::default();
            for name in names {
                self.gather_own(name, options, &mut freight)?;
            }
            merge_roots(&mut freight);
            if freight.roots.len() > 1 && matches!(to, Source::Directory(_)) {
                let reason = "a dir: holds one image";
                return Err(Error::NotADestination { path: to.path().to_owned(), reason });
            }
            let from = Location::Store(names.first().cloned().unwrap_or_default());
            let destination = self.destination(&from, to, &mut freight, options, staging)?;
            send(&freight, destination, options)
        })
    }

    /// Loads what is copied into the store, under a name.
    fn take_in(&self, source: &Source, name: &str, options: &CopyOptions) -> Result<Copied> {
        let name: Reference = name.parse::<Reference>()?.or_latest();
        let mut load = LoadOptions {
            access: options.from.clone(),
            progress: Arc::clone(&options.progress),
            name: Some(name.clone()),
            ..LoadOptions::default()
        };
        let platforms = match &options.which {
            Which::One(platform) => vec![platform.clone()],
            Which::All => self.platforms(source, &load)?,
        };
        for platform in platforms {
            load.platform = platform;
            self.load(source, &load)?;
        }
        let target = self.meaning(&name.to_string(), None)?.target;
        Ok(Copied { digest: target.digest, size: target.size })
    }

    /// The platforms that the index of a source names.
    fn platforms(&self, source: &Source, options: &LoadOptions) -> Result<Vec<Option<Platform>>> {
        self.staged(|staging| {
            let origin = Origin::open(source, &staging.path.join("spool"), options)?;
            let entries = match origin.layout {
                source::Layout::Docker => return Ok(vec![None]),
                source::Layout::Named => origin.named().cloned().into_iter().collect(),
                source::Layout::Oci => layout_entries(&origin, source)?,
            };
            let mut found = Vec::new();
            for entry in &entries {
                if let Document::Index(images) = read_manifest(entry.digest, &origin.document_blob(entry)?)? {
                    let platforms = images.into_iter().filter_map(|image| image.platform);
                    found.extend(platforms.filter(|platform| platform.os != "unknown").map(Some));
                }
            }
            Ok(if found.is_empty() { vec![None] } else { found })
        })
    }

    fn gather(&self, from: &Location, options: &CopyOptions, staging: &Staging) -> Result<Freight> {
        let mut freight = Freight::default();
        let source = match from {
            Location::Store(name) => {
                self.gather_own(name, options, &mut freight)?;
                return Ok(freight);
            }
            Location::Outside(source) => source,
        };
        let load = LoadOptions { access: options.from.clone(), ..LoadOptions::default() };
        let origin = Origin::open(source, &staging.path.join("spool"), &load)?;
        match origin.layout {
            source::Layout::Docker => gather_docker(&origin, source, options, &mut freight)?,
            source::Layout::Named => {
                let name = if let Source::Registry(name) = source { Some(name.clone()) } else { None };
                if let Some(entry) = origin.named() {
                    gather_one(&origin, entry, name.into_iter().collect(), options, &mut freight)?;
                }
            }
            source::Layout::Oci => {
                for entry in layout_entries(&origin, source)? {
                    let names = full_name_of(&entry, source).into_iter().collect();
                    gather_one(&origin, &entry, names, options, &mut freight)?;
                }
            }
        }
        Ok(freight)
    }

    /// What a name of the store means. Its blobs are open then: that one is taken away does not matter any more.
    fn gather_own(&self, name: &str, options: &CopyOptions, freight: &mut Freight) -> Result<()> {
        let _moment = self.moment()?;
        let platform = if let Which::One(Some(platform)) = &options.which { Some(platform) } else { None };
        let meaning = self.meaning(name, platform)?;
        // Where its blobs came from, under whatever name; else the name is all that is known.
        let repository = meaning.repository.as_ref().and_then(|name| name.parse::<Reference>().ok());
        let from = repository.map(Reference::or_latest).or_else(|| meaning.names.first().cloned());
        let elsewhere = from.map(|name| Elsewhere::new(name, options.from.clone()));
        let images: BTreeSet<Digest> = self.image_ids()?.into_iter().collect();
        let is_whole = platform.is_none() && self.is_whole(&meaning.target, &images, 0);
        let chosen = if is_whole { &meaning.target } else { &meaning.image };
        let origin = Origin::of_store(name, self.layout(), chosen, elsewhere.map(Arc::new))?;
        let mut root = chosen.clone();
        if options.which == Which::All && !is_whole {
            let bytes = fs_err::read(self.blob_path(meaning.target.digest))?;
            let mut index: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let is_here = |entry: &Value| {
                serde_json::from_value(entry.clone()).is_ok_and(|entry| self.is_whole(&entry, &images, 0))
            };
            if let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) {
                entries.retain(is_here);
            }
            let bytes = crate::store::to_json(&index);
            root = Descriptor::of(&bytes, &meaning.target.media_type);
            freight.add_document(&origin, &root, bytes, 0)?;
        } else {
            freight.add(&origin, &root, 0)?;
        }
        root.annotations.clear();
        freight.roots.push(Root { descriptor: root, names: meaning.names });
        Ok(())
    }

    /// Whether every image that a manifest or index leads to is here, in this form or another one.
    fn is_whole(&self, descriptor: &Descriptor, images: &BTreeSet<Digest>, depth: usize) -> bool {
        let Ok(bytes) = fs_err::read(self.blob_path(descriptor.digest)) else { return false };
        match read_manifest(descriptor.digest, &bytes) {
            Ok(Document::Manifest { config, .. }) => images.contains(&config.digest),
            Ok(Document::Index(entries)) => {
                depth < 8
                    && !entries.is_empty()
                    && entries.iter().all(|entry| self.is_whole(entry, images, depth + 1))
            }
            Err(_) => false,
        }
    }

    /// Makes the freight as it is to be there, and opens the destination.
    fn destination(
        &self,
        from: &Location,
        to: &Source,
        freight: &mut Freight,
        options: &CopyOptions,
        staging: &Staging,
    ) -> Result<Destination> {
        let layers = freight.blobs.iter().map(|blob| (blob.descriptor.digest, blob.descriptor.size));
        options.progress.begin(layers);
        freight.rewrite(&options.recipe, &staging.path, &options.progress)?;
        if let Source::DockerArchive { tag: Some(tag), .. } = to {
            let name = tag.parse::<Reference>()?.or_latest();
            freight.roots.iter_mut().for_each(|root| root.names = vec![name.clone()]);
        }
        Ok(match to {
            Source::Registry(name) => {
                let elsewhere = self.elsewhere(from, name, freight)?;
                let mut paths: Vec<String> = elsewhere.values().cloned().collect();
                paths.sort();
                paths.dedup();
                paths.truncate(MOUNTED_MAX);
                let repository = Repository::open_to_push(name, &options.to, &paths)?;
                Destination::Registry(Remote { repository, name: name.clone(), elsewhere })
            }
            Source::OciDirectory { path, tag } => Destination::Layout(Layout::open(path, tag.as_deref())?),
            Source::OciArchive { path, tag } => {
                Destination::Archive(Archive::open(path, tag.as_deref(), false)?)
            }
            Source::DockerArchive { path, tag } => {
                Destination::Archive(Archive::open(path, tag.as_deref(), true)?)
            }
            Source::Directory(path) | Source::Any(path) => Destination::Hex(Hex::open(path)?),
        })
    }

    /// Which other repositories of the registry of `name` may have the blobs: those of names that lead to them here, the source's own first.
    fn elsewhere(
        &self,
        from: &Location,
        name: &Reference,
        freight: &Freight,
    ) -> Result<BTreeMap<Digest, String>> {
        let _moment = self.moment()?;
        let mut found = BTreeMap::new();
        // A registry that was sent a plain layer before has it as it is compressed here: the same each time.
        let blobs: Vec<(Digest, Digest)> =
            freight.blobs.iter().map(|blob| (blob.origin, blob.descriptor.digest)).collect();
        let host = name.name().split('/').next().unwrap_or_default();
        let beside = |other: &str| match other.split_once('/') {
            Some((other_host, path)) if other_host == host && other != name.name() => Some(path.to_owned()),
            _ => None,
        };
        if let Location::Outside(Source::Registry(source)) = from
            && let Some(path) = beside(source.name())
        {
            found.extend(blobs.iter().map(|(_, blob)| (*blob, path.clone())));
        }
        let mut records = self.reference_records()?;
        let own = freight.roots.first().map(|root| root.names.clone()).unwrap_or_default();
        records.sort_by_key(|record| !own.iter().any(|name| name.canonical() == record.reference));
        for record in records {
            let reference: Reference = record.reference.parse()?;
            let Some(path) = beside(reference.name()) else { continue };
            let mut marked = BTreeSet::new();
            self.mark(&record.target, &mut marked, 0);
            for (_, blob) in blobs.iter().filter(|(origin, _)| marked.contains(origin)) {
                found.entry(*blob).or_insert_with(|| path.clone());
            }
        }
        Ok(found)
    }
}

/// Sends the blobs, several at once where that can be, then the documents.
fn send(freight: &Freight, destination: Destination, options: &CopyOptions) -> Result<()> {
    let mut order: Vec<usize> = (0..freight.blobs.len()).collect();
    if destination.takes_many() {
        // The longest first: the last one to end is then short.
        order.sort_by_key(|at| std::cmp::Reverse(freight.blobs[*at].descriptor.size));
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed = Mutex::new(None);
    let work = || {
        while let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let passage = Passage::new(&freight.blobs[*at], &options.progress, *at);
            match destination.send(&passage) {
                Ok(Sent::Whole) => passage.enter(Stage::Done),
                Ok(Sent::Already) => passage.enter(Stage::There),
                Ok(Sent::Mounted) => passage.enter(Stage::Mounted),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    if let Ok(mut failed) = failed.lock() {
                        failed.get_or_insert(error);
                    }
                }
            }
        }
    };
    let threads = if destination.takes_many() { CONNECTIONS.min(order.len()) } else { 1 };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match failed.into_inner().unwrap_or_default() {
        Some(error) => Err(error),
        None => destination.finish(freight),
    }
}

/// Adds what an entry of a source means.
fn gather_one(
    origin: &Origin,
    entry: &Descriptor,
    names: Vec<Reference>,
    options: &CopyOptions,
    freight: &mut Freight,
) -> Result<()> {
    let mut root = match &options.which {
        Which::All => entry.clone(),
        Which::One(platform) => {
            let wanted = platform.clone().unwrap_or_else(Platform::host);
            choose(origin, entry, &wanted, &mut Vec::new(), 0)?
        }
    };
    freight.add(origin, &root, 0)?;
    root.annotations.clear();
    if root.media_type.is_empty() {
        root.media_type = crate::freight::media_type(freight.document(root.digest).unwrap_or_default());
    }
    freight.roots.push(Root { descriptor: root, names });
    Ok(())
}

/// Adds the images of a docker archive, which get manifests.
fn gather_docker(
    origin: &Origin,
    source: &Source,
    options: &CopyOptions,
    freight: &mut Freight,
) -> Result<()> {
    let platform = if let Which::One(platform) = &options.which { platform.clone() } else { None };
    let load = LoadOptions { platform, ..LoadOptions::default() };
    for plan in plans(origin, source, &load)? {
        let mut sums = Vec::with_capacity(plan.layers.len());
        let budget = Budget::new(Limits::default());
        for (layer, diff_id) in plan.layers.iter().zip(&plan.config.rootfs.diff_ids) {
            let Bytes::Local(range) = &layer.bytes else { continue };
            let failed = |error| unpack::io_error(&diff_id.to_string(), error);
            let plain = Plain::new(Stored::new(Box::new(range.clone()), None), &budget).map_err(failed)?;
            let sum = plain.finish().map_err(failed)?;
            if sum.diff_id != *diff_id {
                let blob = "an uncompressed layer".to_owned();
                return Err(Error::DigestMismatch { blob, expected: *diff_id, found: sum.diff_id });
            }
            sums.push((sum, range.clone()));
        }
        let bytes = manifest_json(plan.id, plan.config_size, sums.iter().map(|(sum, _)| sum));
        let descriptor = Descriptor::of(&bytes, media::MANIFEST);
        let mut payloads: BTreeMap<Digest, Payload> =
            sums.into_iter().map(|(sum, range)| (sum.digest, Payload::File(range))).collect();
        for (digest, bytes) in plan.documents {
            payloads.insert(digest, Payload::Bytes(Arc::new(bytes)));
        }
        freight.add_image(descriptor.clone(), bytes, &payloads)?;
        freight.roots.push(Root { descriptor, names: plan.names });
    }
    Ok(())
}

/// One root for each image, with all names that were asked for.
fn merge_roots(freight: &mut Freight) {
    let mut merged: Vec<Root> = Vec::new();
    for root in freight.roots.drain(..) {
        match merged.iter_mut().find(|known| known.descriptor.digest == root.descriptor.digest) {
            Some(known) => {
                let new: Vec<_> = root.names.into_iter().filter(|name| !known.names.contains(name)).collect();
                known.names.extend(new);
            }
            None => merged.push(root),
        }
    }
    freight.roots = merged;
}

fn shown(location: &Location) -> String {
    match location {
        Location::Store(name) => name.clone(),
        Location::Outside(source) => source.name(),
    }
}
